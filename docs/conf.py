"""Sphinx: `pip install -r docs/requirements.txt && sphinx-build -W --keep-going -n docs build/docs`."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

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
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sphinx = False


class DarkPictures(SphinxTransform):
    """A picture whose name ends with "-light" has one that is shown in its place on a dark page."""

    default_priority = 300  # before Sphinx gathers the images

    def apply(self, **_options: Any) -> None:
        images = list(self.document.findall(nodes.image))
        shown = {image["uri"] for image in images}
        for image in images:
            if (dark := image["uri"].replace("-light.", "-dark.")) not in shown:
                twin = nodes.image(uri=dark, alt=image.get("alt", ""), classes=["only-dark"])
                image["classes"].append("only-light")
                image.parent.insert(image.parent.index(image) + 1, twin)


def break_names(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Code in tables may be broken behind each underscore and dot."""
    if "<table" in context.get("body", ""):
        context["body"] = re.sub(r"<table.*?</table>", _broken, context["body"], flags=re.DOTALL)


def _broken(table: re.Match[str]) -> str:
    code = re.compile(r'(?<=<span class="pre">)[^<]+')
    return code.sub(lambda name: re.sub(r"(?<=\w)[_./]", r"\g<0><wbr>", name[0]), table[0])


def setup(app: Any) -> None:
    app.add_transform(DarkPictures)
    app.connect("html-page-context", break_names)
