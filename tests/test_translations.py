"""The texts of the pages, in every language that is shipped."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest
from django.utils import translation
from django.utils.translation.template import templatize

import django_multisession

PACKAGE = Path(django_multisession.__file__).parent
LANGUAGES = ["ar", "de", "es", "fr", "he", "it", "ja", "ko", "pl", "pt", "zh_Hans"]
CONTEXT = "django_multisession"
FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"}
MARKED = re.compile(r"""\b(?:_|n?gettext)\(u?("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


def catalog(language: str, suffix: str = "po") -> polib.POFile:
    path = PACKAGE / "locale" / language / "LC_MESSAGES" / f"django.{suffix}"
    return polib.pofile(str(path)) if suffix == "po" else polib.mofile(str(path))


def key(entry: polib.POEntry) -> tuple[str | None, str]:
    return entry.msgctxt, entry.msgid


def texts() -> Iterator[tuple[str | None, str]]:
    """What the code and the templates mark as to be translated, behind its context: Django looks for both."""
    for source in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
                argument = node.args[node.func.id.startswith("pgettext")]
                assert isinstance(argument, ast.Constant), (source, node.lineno)
                yield CONTEXT if argument is not node.args[0] else None, str(argument.value)
    for template in PACKAGE.rglob("*.html"):
        for quoted in MARKED.findall(templatize(template.read_text())):  # Django's own reading, as for makemessages
            yield None, ast.literal_eval(quoted)


def test_titles_are_translated_in_a_context_of_our_own() -> None:
    for language in LANGUAGES:
        titles = {entry.msgid for entry in catalog(language) if entry.msgctxt == CONTEXT}
        assert titles == {"Sessions", "Users"}, language
        assert {entry.msgctxt for entry in catalog(language)} == {None, CONTEXT}


def test_languages() -> None:
    assert sorted(path.name for path in (PACKAGE / "locale").iterdir()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
class TestCatalog:
    def test_every_text_is_translated(self, language):
        translated = {key(entry) for entry in catalog(language) if entry.translated() and not entry.obsolete}
        assert set(texts()) - translated == set()

    def test_nothing_is_left_over_or_in_doubt(self, language):
        po = catalog(language)
        assert [entry.msgid for entry in po.untranslated_entries() + po.fuzzy_entries() + po.obsolete_entries()] == []
        assert {key(entry) for entry in po} - set(texts()) == set()

    def test_placeholders_are_the_same(self, language):
        for entry in catalog(language):
            known = set(PLACEHOLDER.findall(entry.msgid + entry.msgid_plural))
            for text in [entry.msgstr, *entry.msgstr_plural.values()]:
                assert set(PLACEHOLDER.findall(text)) <= known, entry.msgid
            if not entry.msgid_plural:
                assert set(PLACEHOLDER.findall(entry.msgstr)) == known, entry.msgid

    def test_what_is_compiled_is_what_is_written(self, language):
        def contents(entries: object) -> dict[str, object]:
            return {entry.msgid: entry.msgstr or dict(entry.msgstr_plural) for entry in entries}  # type: ignore[attr-defined]

        assert contents(catalog(language, "mo")) == contents(catalog(language))


def test_django_finds_them() -> None:
    with translation.override("de"):
        assert translation.gettext("Your sessions") == "Ihre Sitzungen"
    with translation.override("zh-hans"):
        assert translation.ngettext("%(count)d session was found.", "%(count)d sessions were found.", 2).startswith(
            "已"
        )
