"""The example site's project package. In a checkout it works uninstalled; an installed django-multisession is preferred."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
