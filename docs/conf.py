"""Sphinx: `pip install -r docs/requirements.txt && sphinx-build -W --keep-going -n docs build/docs`."""

import re
from pathlib import Path

source = (Path(__file__).parent.parent / "django_multisession" / "__init__.py").read_text()
[version] = re.findall(r'__version__ = "(.+)"', source)

project = "django-multisession"
author = "The django-multisession team"
release = version
extensions = ["myst_parser"]
exclude_patterns = ["requirements.txt"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"django-multisession {version}"
html_copy_source = False
html_show_sphinx = False
