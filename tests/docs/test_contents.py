"""The contents are in the order of a reader's way: first what a site needs first, the package's own matters last."""

import re

from ..test_docs import DOCS, slug

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


FORMER = """
    what-a-revocation-promises clocks another-site a-lost-index where-from how-many-sessions a-refused-log-in
    changes-of-the-user signals e-mail-at-a-new-device another-browser-in-the-same-session recent-log-ins
    a-log-in-that-is-none pages json when-the-list-is-incomplete templates admin in-the-admin-of-the-users
    when-the-store-is-away command
"""


def test_old_links_into_the_page_that_was_split_hold() -> None:
    headings = re.findall(r"^#+ (.+)$", (DOCS / "user-sessions.md").read_text(), re.MULTILINE)
    assert set(FORMER.split()) <= {slug(heading) for heading in headings}
