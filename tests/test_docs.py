"""The documentation agrees with the code, as far as a test can tell."""

import ast
import asyncio
import base64
import itertools
import re
import textwrap
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.conf import global_settings
from django.contrib.sessions.serializers import JSONSerializer
from django.test import Client, override_settings

from django_multisession import checks
from django_multisession.backends.base import SessionStore, Storage
from django_multisession.backends.mongodb import storage as mongodb_storage
from django_multisession.backends.redis import answers as redis_answers
from django_multisession.backends.redis import scripts as redis_scripts
from django_multisession.conf import NAMES
from django_multisession.models import Session
from django_multisession.payload import codecs
from django_multisession.records import Record, identify, to_epoch
from django_multisession.twins import run_sync

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]

# The session that the engines' pages show.
KEY = "0123456789abcdefghijklmnopqrstuv"
CREATED = datetime(2026, 1, 1, 12, 34, 56, 789000, UTC)


def text(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(page: Path, language: str) -> list[str]:
    return [textwrap.dedent(code) for code in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)]


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table rows whose first cell matches."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    return [row for row in cells if re.fullmatch(first, row[0].strip())]


@pytest.fixture
def example() -> Record:
    with override_settings(SECRET_KEY="docs", SECRET_KEY_FALLBACKS=[]):
        body = codecs.Serialized(codecs.FAST_JSON, b'{"_auth_user_id":"42","cart":[7]}')
        return Record(
            id=identify(KEY),
            payload=codecs.close(body, identify(KEY)),
            user_id="42",
            created_at=CREATED,
            updated_at=CREATED,
            expires_at=CREATED + timedelta(days=14),
            version=1,
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_python_compiles(self, page):
        for code in blocks(page, "python"):
            compile(code, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def test_links_lead_somewhere(self, page):
        for target, anchor in re.findall(r"\]\((?!http)([^)#]+)(?:#([^)]*))?\)", page.read_text()):
            assert (page.parent / target).exists(), target
            if not target.endswith(".md"):
                continue  # a picture
            headings = re.findall(r"^#+ (.+)$", (page.parent / target).read_text(), re.MULTILINE)
            assert not anchor or anchor in map(slug, headings), (target, anchor)

    def test_settings_exist(self, page):
        for name in set(re.findall(r"\b(?:MULTI)?SESSION_[A-Z_]*[A-Z]\b", page.read_text())) - {"SESSION_KEY"}:
            if name == "SESSION_DAYS_TRIM_THRESHOLD":  # of Rails
                continue
            assert name in NAMES or hasattr(global_settings, name), name


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


class TestSettings:
    def test_all_are_there_with_their_defaults(self):
        documented = {row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in own_settings("settings.md")}
        assert documented == {name: setting.default for name, setting in NAMES.items()}

    def test_each_has_a_section(self):
        assert set(re.findall(r"^### `(\w+)`$", text("settings.md"), re.MULTILINE)) == set(NAMES)

    def test_the_readme_has_them_all(self):
        assert [row[0].strip("`") for row in own_settings("../README.md")] == list(NAMES)

    def test_all_of_djangos_are_there(self):
        named = {row[0].strip("`") for row in rows(text("settings.md"), r"`SE(SSION|CRET)_\w+`")}
        assert named == {name for name in dir(global_settings) if name.startswith(("SESSION_", "SECRET_"))}

    def test_all_system_checks_are_there(self):
        documented = [row[0].strip("`") for row in rows(text("settings.md"), r"`[EW]\d{3}`")]
        assert documented == sorted(re.findall(r"[EW]\d{3}", str(checks.__doc__)))


def own_settings(page: str) -> list[list[str]]:
    return rows(text(page), r"`MULTISESSION_\w+`")


class TestFormats:
    def test_the_id(self, example):
        for page in ("redis.md", "mongodb.md", "db.md", "security.md"):
            assert example.id in text(page)

    def test_redis_value(self, example):
        dump = re.findall(r"^[0-9a-f]{8}: ((?:[0-9a-f]{4} ?)+)", text("redis.md"), re.MULTILINE)
        assert bytes.fromhex("".join(dump)) == redis_answers.pack(example)

    def test_redis_header(self):
        fields = [row for row in rows(text("redis.md"), r"\d+") if re.fullmatch(r"[ui]\d+", row[2])]
        types = {"u64": "Q", "i64": "q", "u32": "I", "u16": "H"}
        assert ">" + "".join(types[row[2]] for row in fields) == redis_answers.HEADER.format
        ends = [int(row[0]) + int(row[1]) for row in fields]
        assert [int(row[0]) for row in fields] == [0, *ends[:-1]]
        assert ends[-1] == redis_answers.HEADER.size == 38

    def test_redis_times(self, example):
        page = text("redis.md")
        hour = -(-to_epoch(example.expires_at) // redis_answers.HOUR) + 1  # to spare
        for number in (to_epoch(example.expires_at), hour):
            assert str(number) in page
        for number in (to_epoch(example.expires_at), hour):
            assert f"`0x{number.to_bytes(6 if number > 2**32 else 4, 'big').hex()}`" in page

    def test_redis_commands_of_the_scripts_are_allowed_to_the_acl_user(self):
        allowed = set(re.findall(r"\+([a-z]+)", text("redis.md")))
        called = re.findall(r"redis\.p?call\('(\w+)'", "".join(redis_scripts.SHA) + redis_scripts.INDEX)
        assert {command.lower() for command in called} <= allowed

    def test_mongodb_document(self, example):
        page = text("mongodb.md")
        document = mongodb_storage._fields(example)
        assert [row[0].strip("`") for row in rows(page, r"`\w+`")][: len(document) + 1] == ["_id", *document]
        assert base64.b64encode(document.pop("data")).decode() in page
        for name, value in document.items():
            shown = f"ISODate('{value:%Y-%m-%dT%H:%M:%S}.789Z')" if isinstance(value, datetime) else repr(value)
            assert f"\n  {name}: {shown}" in page

    def test_mongodb_indexes(self):
        documented = rows(text("mongodb.md"), r"`\{\w+: 1.*\}`")
        assert [re.findall(r"\w+(?=: 1)", row[0]) for row in documented] == [
            list(index.document["key"]) for index in mongodb_storage.INDEXES
        ]

    def test_sql_row(self, example):
        shown = dict(re.findall(r"^(\w+) +\| (\w+)$", text("db.md"), re.MULTILINE))
        times = (example.created_at, example.updated_at, example.expires_at)
        values = example.id, example.payload.hex(), "42", *(str(to_epoch(each)) for each in times), "1"
        columns = [field.column for field in Session._meta.fields]
        assert shown == dict(zip(columns, values, strict=True))
        assert [row[0].strip("`") for row in rows(text("db.md"), r"`\w+`")][: len(columns)] == columns

    def test_sql_indexes(self):
        for index in Session._meta.indexes:
            assert f"`{index.name}` on `({', '.join(index.fields)})`" in text("db.md")

    def test_payload_header(self, example):
        assert example.payload[0] == codecs.MARK | codecs.FAST_JSON == 0x82
        with override_settings(SECRET_KEY="docs"):
            assert codecs.decode(example.payload, example.id, JSONSerializer) == {"_auth_user_id": "42", "cart": [7]}


class TestKeyRotation:
    """The deployments of security.md, in their order, with the keys that each one sets."""

    OLD, NEW = "a" * 64, "b" * 64
    STEPS: ClassVar = [[], [None, OLD], [OLD], [OLD, NEW], [NEW, OLD], [NEW], [None, NEW], []]

    @pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(STEPS)))
    def test_processes_of_both_deployments_read_each_other(self, before, after):
        for writer, reader in itertools.permutations([before, after]):
            with override_settings(MULTISESSION_ENCRYPTION_KEYS=writer):
                payload = codecs.encode({"a": 1}, "id", JSONSerializer)
            with override_settings(MULTISESSION_ENCRYPTION_KEYS=reader):
                assert codecs.decode(payload, "id", JSONSerializer) == {"a": 1}


class TestWritingAnEngine:
    def test_the_verbs_are_those_of_the_protocol(self):
        verbs = {name for name in vars(Storage) if not name.startswith("_")}
        assert {re.match(r"`(\w+)\(", row[0])[1] for row in rows(text("design.md"), r"`\w+\(.*\)`")} == verbs

    def test_the_snippets_make_an_engine(self):
        closed = []

        class MyClient:
            def close(self):
                closed.append("sync")

        class MyAsyncClient:
            async def aclose(self):
                closed.append("async")

        names: dict[str, Any] = {"MyClient": MyClient, "MyAsyncClient": MyAsyncClient}
        for code in blocks(DOCS / "writing-an-engine.md", "python"):
            exec(code, names)
        store = names["SessionStore"]
        assert issubclass(store, SessionStore)
        assert run_sync(store.storage._ask(lambda: 1)) == 1

        async def asynchronously() -> Any:
            return await store.astorage._ask(asyncio.sleep, 0)

        asyncio.run(asynchronously())
        names["connections"].close()
        assert closed == ["async", "sync"]


class TestTesting:
    def test_its_test_case_passes(self):
        [code] = [each for each in blocks(DOCS / "testing.md", "python") if "class CartTests" in each]
        names: dict[str, Any] = {}
        exec(code, names)
        # Without a database, since this run's own is set up.
        case = type("Case", (names["IsolatedSessionsMixin"], unittest.TestCase), {"client": Client()})
        case.test = names["CartTests"].test_the_cart_is_kept
        result = case("test").run()
        assert result.wasSuccessful(), result.errors
