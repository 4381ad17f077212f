"""The contents are in the order of a reader's way: first what a site needs first, the package's own matters last."""

import re

from ..test_docs import DOCS

BEGIN = ["quickstart", "install", "choose", "moving"]
ENGINES = ["redis", "mongodb", "db", "cached-db", "memory"]
USERS = ["user-sessions", "sessions-api", "sessions-pages", "sessions-policies", "sessions-lost-index"]
RUN = ["purging", "testing", "deployment", "troubleshooting"]
REFERENCE = ["settings", "api", "performance", "capacity", "security", "security-policy"]
WAY = [*BEGIN, *ENGINES, "concurrency", *USERS, *RUN, *REFERENCE, "contributing", "changelog"]


def test_the_order_of_the_pages() -> None:
    entries = re.findall(r"^(?:[^:`|\n]* <)?([a-z-]+)>?$", contents(), re.MULTILINE)
    assert {*entries} | {"index"} == {page.stem for page in DOCS.glob("*.md")}
    assert [name for name in entries if name in WAY] == WAY


def contents() -> str:
    return "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL))
