"""The README as a package index shows it: its relative links would lead nowhere there, so they lead to the docs."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {"CONTRIBUTING.md": "contributing", "SECURITY.md": "security-policy", "CHANGELOG.md": "changelog"}  # as there

RELATIVE = re.compile(r"""(?:(?<=\]\()|(?<=src=")|(?<=srcset="))(?!https?:|#)[^)"#\s]+""")  # of Markdown, of HTML


class Readme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = RELATIVE.sub(lambda link: published(link[0], metadata["urls"]), text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def published(path: str, urls: dict[str, str]) -> str:
    """Where Sphinx puts the page or the picture."""
    if path in PAGES:
        return f"{urls['Documentation']}{PAGES[path]}.html"
    path = path.removeprefix("docs/").replace("images/", "_images/")
    return urls["Documentation"] + re.sub(r"\.md$", ".html", path)
