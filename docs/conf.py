"""Sphinx: `pip install -r docs/requirements.txt && sphinx-build -W --keep-going -n docs build/docs`."""

import re
import sys
from pathlib import Path

source = (Path(__file__).parent.parent / "django_multisession" / "__init__.py").read_text()
[version] = re.findall(r'__version__ = "(.+)"', source)

sys.path.insert(0, str(Path(__file__).parent.parent))
from django.conf import settings  # noqa: E402

settings.configure(SESSION_ENGINE="django_multisession.backends.memory", USE_TZ=True)

project = "django-multisession"
author = "The django-multisession team"
release = version
extensions = ["myst_parser", "sphinx.ext.autodoc"]
autodoc_typehints = "none"  # which would be links to Django's and Python's own pages
autodoc_member_order = "bysource"
exclude_patterns = ["requirements.txt"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"django-multisession {version}"
html_copy_source = False
html_show_sphinx = False
