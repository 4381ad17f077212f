"""The example site. It works in a checkout, too, but an installed django-multisession comes first."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
