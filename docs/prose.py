"""Lints the prose of README.md, CONTRIBUTING.md, SECURITY.md and the pages: `python docs/prose.py`, or some by name.

proselint's checks, and the house's own: how the words and the sentences of these pages are. What is code or a link is
masked, character by character, so that lines and columns stay what they are. Exit code 1 where something is found.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proselint.checks import __register__ as of_proselint
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, engine
from proselint.registry.checks.types import ExistenceSimple
from proselint.tools import LintFile

DOCS = Path(__file__).parent
ROOT = DOCS.parent
HISTORY = "changelog.md"  # says what older releases said
CODE = re.compile(
    r"^ *```.*?^ *```$|^:::.*?$|``.+?``|`[^`\n]*(?:\n[^`\n]+)?`|<https?:[^>]*>|https?://\S+|(?<=\])\([^)\s]*\)|<!--.*?-->",
    re.DOTALL | re.MULTILINE,
)
START = r"(?:(?<=[.!?] )|(?<=[.!?]\n)|(?<=[.!?]\n  )|(?<=\n\n)|(?<=\n- )|(?<=\n\d\. )|(?<=\| )|(?<=\*\*))"


class Rule(NamedTuple):
    name: str
    pattern: str
    advice: str
    example: str  # a sentence that it must find
    any_case: bool = True

    @property
    def check(self) -> Check:
        options = engine.RegexOptions(case_insensitive=self.any_case)
        found = ExistenceSimple(self.pattern)
        return Check(found, engine.Fancy(options), f"house.{self.name}", f"'{{}}': {self.advice}")


WHO = r"(?:\w+ )?"  # "logs everybody out"
RULES = (
    Rule(
        "sign_in",
        rf"(?<![\w-])log(?:s|ged|ging)?\s{WHO}(?:in|out)\b(?!\s(?:a|the)\b)",
        "users sign in and sign out; the noun is log-in or log-out.",
        "Redis was restarted, which logs everybody out.",
    ),
    Rule("log_in", r"(?<![\w./_-])log(?:in|out)s?\b(?![./_(])", "write log-in or log-out.", "After a login it is new."),
    Rule(
        "minimizers",
        r"\b(?:simply|easy|easily|obviously|of course|trivial|trivially|basically|merely)\b"
        r"|(?<!\bhas )(?<!\bhave )(?<!\bhad )(?<!\bwas )\bjust\b(?!\sthen)",  # "has just signed in" is a time
        "leave it out: it tells readers that they are slow.",
        "You just set it.",
    ),
    Rule(
        "participle_first",
        rf"{START}(?!Need|Indeed|Speed|Red|Embed|Seed|Feed)[A-Z][a-z]+ed (?:is|are|was|were)\b",
        "begin with the subject.",
        "It is slow. Compared are the bytes.",
        any_case=False,
    ),
    Rule(
        "of_first",
        rf"(?:{START}Of|, (?:and|but) of|[:;] of)"
        r" (?:a|an|the|all|each|one|two|three|many|those|what|who|its|them)\b(?! which)",
        "begin with the subject, not with what it is one of.",
        "It asks first, and of the one who uses it the session at work stays.",
        any_case=False,
    ),
    Rule(
        "of_two",
        r"\bof (?:two|several|many|those) [^.;:|]{0,50}? (?:one|both|the (?:last|first|other))"
        r" (?:is|are|works?|wins?|ends?|stays?)\b",
        "begin with the subject, not with what it is one of.",
        "Therefore of two at once one works and the other ends.",
    ),
    Rule("up_to", r"\bis up to\b", "say who does what.", "What happens then is up to the engine."),
    Rule(
        "what_first",
        rf"{START}What (?:then|now|thus) ",
        "begin with the subject.",
        "It ends. What then happens is open.",
        any_case=False,
    ),
    Rule(
        "verb_first",
        rf"{START}(?:To be|Not to be|Nothing is to be|There is to be)\b",
        "say who does it, or tell the reader to.",
        "It ends. To be set is the name.",
        any_case=False,
    ),
    Rule("twice", r"\b(?!that|had)(\w+)[ \n]\1\b", "a word is there twice.", "It is in the the store.", any_case=False),
    Rule("shall", r"\bshall\b", "write want, must or will.", "The pages, if your users shall have them."),
    Rule(
        "no_subject",
        rf"{START}(?:Has|Have|Is|Are|Was|Were|Does|Gives|Takes|Makes) (?:no|not|been|a|an|the)\b(?![^.|]*\?)",
        "the sentence has no subject.",
        "It ends. Has no subject.",
        any_case=False,
    ),
)
# Of proselint's own. Left out is what is about typography, times of day, and people's names.
OF_PROSELINT = (
    "archaism", "cliches", "hedging", "malapropisms", "mondegreens", "needless_variants", "nonwords",
    "oxymorons", "redundancy", "spelling", "uncomparables", "industrial_language", "misc",
)  # fmt: skip


def masked(text: str) -> str:
    """With blanks for blocks that are no prose, and an x for each character of what is none within a sentence."""

    def mask(found: re.Match[str]) -> str:
        is_block = found[0].lstrip().startswith(("```", ":::"))
        return re.sub(r"[^\n]", " " if is_block else "x", found[0])

    return CODE.sub(mask, text)


def found_in(text: str, name: str) -> Iterator[str]:
    config = {"max_errors": 1000, "checks": dict.fromkeys(("house", *OF_PROSELINT), True)}
    for result in LintFile(name, masked(text)).lint(config):
        line, column = result.pos
        yield f"{name}:{line}:{column}: {result.check_result.check_path}: {result.check_result.message}"


def blind() -> list[str]:
    """The rules that do not find their own example, nor report it by their name."""
    return [
        rule.name
        for rule in RULES
        if not any(f"house.{rule.name}:" in each for each in found_in(f"\n{rule.example}\n", ""))
    ]


def main(names: list[str]) -> int:
    registry = CheckRegistry()
    registry.register_many(of_proselint)
    registry.register_many(tuple(rule.check for rule in RULES))
    if lost := blind():
        raise SystemExit(f"These rules do not find their examples: {', '.join(lost)}")
    pages = [Path(name) for name in names] or [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
    found = [each for page in pages if page.name != HISTORY for each in found_in(page.read_text(), page.name)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
