"""The purge in the admin: its runs, and the charts above them, on every database."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import Client
from django.utils import translation
from django.utils.html import escape

from django_multisession.admin import purge_charts
from django_multisession.models import PurgeRun
from django_multisession.purge import purge
from django_multisession.purge.targets import target
from django_multisession.records import utcnow

from ..purging import DAY, HOUR, expired, live, statements
from ..routers import SessionRouter
from ..test_charts import bars, svg

LIST = "/admin/django_multisession/purgerun/"
TABLE = "django_multisession_session"
AGES = ["> 7", *(f"{day}\N{EN DASH}{day + 1}" for day in range(6, -1, -1))]
HOSTILE = """</title><script>alert("&")</script>'"""


@pytest.fixture
def engine_name() -> str:
    return "sqlite"


def on(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines)


everywhere = on("sqlite", "postgres", "mysql")


@pytest.fixture
def runs(Store: Any) -> Any:
    runs = PurgeRun.objects.using(SessionRouter.alias)
    runs.all().delete()
    yield runs
    runs.all().delete()


def run(rows: int = 0, seconds: float = 1, **values: Any) -> PurgeRun:
    started = values.pop("started_at", utcnow())
    values = {"table": TABLE, "batches": 1, "more": False, "reason": "done", "host": "web-1", **values}
    ended = started + timedelta(seconds=seconds)
    return PurgeRun.objects.using(SessionRouter.alias).create(rows=rows, started_at=started, ended_at=ended, **values)


@pytest.fixture
def user() -> Any:
    user = get_user_model().objects.create_user("ann", is_staff=True)
    yield user
    user.delete()


def allow(user: Any, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=[f"{name}_purgerun" for name in names]))


@pytest.fixture
def client(runs: Any, user: Any) -> Client:
    """Of somebody who may view the runs, and no more."""
    allow(user, "view")
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, path: str = LIST) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def chart(name: str, page: str) -> str:
    found = re.search(rf'<figure[^>]* id="chart-{name}">.*?</figure>', page, re.DOTALL)
    return found[0] if found else ""


def figures(name: str, page: str) -> dict[str, str]:
    """The table below a chart."""
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', chart(name, page))
    return {label.replace("&gt;", ">"): text for label, text in rows}


def columns(page: str) -> dict[str, str]:
    """The row of a list that has one."""
    return {
        name: re.sub("<.*?>", "", text) for name, text in re.findall(r'class="field-(\w+)[^>]*>(.*?)</t[hd]>', page)
    }


# The list


@everywhere
def test_a_run_is_listed(client):
    expired(1234)
    purge(batch_size=1000)
    shown = columns(page(client))
    kept = PurgeRun.objects.using(SessionRouter.alias).get()
    assert {name: shown[name] for name in ("rows_purged", "batches", "more_waiting", "why", "on_host", "of_table")} == {
        "rows_purged": "1,234",
        "batches": "2",
        "more_waiting": "No",
        "why": "nothing was left",
        "on_host": escape(kept.host),
        "of_table": TABLE,
    }
    assert str(kept.started_at.year) in shown["started"]
    assert shown["duration"].endswith(" s")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (60, "0:01:00"), (3 * 3600 + 61.7, "3:01:02")]
)
def test_durations(client, seconds, text):
    run(seconds=seconds)
    assert columns(page(client))["duration"] == text


def test_the_newest_is_first(client):
    pks = [run(rows=1).pk, run(rows=2).pk]
    assert [each.pk for each in client.get(LIST).context["cl"].result_list] == pks[::-1]


@pytest.mark.parametrize("use_tz", [True, False])
def test_one_run(client, settings, use_tz):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
    kept = run(rows=1234, reason="max_rows", more=True, started_at=datetime(2026, 3, 4, 20, 5, tzinfo=UTC))
    detail = page(client, f"{LIST}{kept.pk}/change/")
    for text in ("March 5, 2026, 5:05 a.m.", "1,234", "1.0 s", "enough rows", "web-1", TABLE, "Yes"):
        assert f'<div class="readonly">{text}</div>' in detail
    assert columns(page(client))["started"] == "March 5, 2026, 5:05 a.m."
    assert list(figures("purged", page(client))) == ["03/05/2026 5:05 a.m."]


@everywhere
def test_reasons_are_in_words_and_filter_the_list(client):
    for reason in ("max_seconds", "done", "of another version"):
        run(rows=1, reason=reason)
    shown = page(client)
    for words in ("time was up", "nothing was left", "of another version"):
        assert f'<td class="field-why">{words}</td>' in shown
    assert "max_seconds" not in re.sub(r'href="[^"]*"', "", shown)
    filtered = page(client, f"{LIST}?reason=max_seconds")
    assert "time was up" in columns(filtered)["why"]
    assert '<td class="field-why">nothing was left</td>' not in filtered


# The chart of rows purged


@everywhere
def test_rows_purged_per_run(client):
    for rows in (50, 100, 25):
        run(rows=rows)
    shown = page(client)
    assert [bar["height"] for bar in bars(chart("purged", shown))] == [50, 100, 25]
    assert "175 in 3 runs" in chart("purged", shown)


def test_all_kept_runs_have_a_bar(client, runs):
    started = utcnow() - 100 * DAY
    for number in range(3):
        run(rows=number, started_at=started + number * DAY)
    values = runs.values("table", "started_at", "ended_at", "batches", "more", "reason", "host").first()
    runs.bulk_create(PurgeRun(**values, rows=1) for _ in range(PurgeRun.KEPT))
    assert len(bars(chart("purged", page(client)))) == PurgeRun.KEPT


def test_a_run_that_left_more_and_one_that_failed_are_marked(client):
    run(rows=5)
    run(rows=5, more=True, reason="max_seconds")
    run(rows=0, more=True, reason="error")
    shown = chart("purged", page(client))
    assert re.findall(r'<g class="(.*?)">', shown) == ["", "open", "failed"]
    assert "left more waiting" in shown
    assert "ended with an error" in shown


def test_the_chart_shows_what_the_list_does(client):
    run(rows=1, host="web-1")
    run(rows=2, host="web-2")
    assert len(bars(chart("purged", page(client, f"{LIST}?host=web-2")))) == 1


def test_a_filter_that_makes_no_sense(client):
    assert client.get(LIST, {"nothing": "x"}).status_code == 302


def test_no_run_yet(client):
    shown = chart("purged", page(client))
    assert "No purge was recorded yet." in shown
    assert "<svg" not in shown


# The chart of rows waiting


@everywhere
def test_rows_waiting_by_age(client):
    for days, count in {1: 3, 2: 2, 7: 1, 8: 4, 400: 5}.items():
        expired(count, ago=days * DAY - HOUR / 10)
    expired(1, ago=HOUR / 2)  # within the grace of a purge
    live(2)
    shown = page(client)
    ages = ["9", "1", "0", "0", "0", "0", "2", "3"]
    assert figures("waiting", shown) == dict(zip(AGES, ages, strict=True))
    assert re.findall(r"<span>(.*?)</span>", chart("waiting", shown).replace("&gt;", ">")) == AGES
    assert f"15 in {TABLE}" in chart("waiting", shown)
    assert purge().rows == 15


@everywhere
def test_so_many_are_waiting_that_they_are_not_all_counted(client, monkeypatch):
    monkeypatch.setattr(purge_charts, "MOST", 5)
    expired(5, ago=2 * DAY + HOUR)
    expired(50, ago=30 * DAY)
    shown = page(client)
    assert figures("waiting", shown)[AGES[0]] == "more than 5, counted no further"
    assert figures("waiting", shown)[AGES[5]] == "5"
    assert f"more than 10 in {TABLE}" in chart("waiting", shown)
    assert [bar["height"] for bar in bars(chart("waiting", shown))] == [100, 0, 0, 0, 0, 100, 0, 0]
    assert "counted no further" in chart("waiting", shown)


@everywhere
def test_what_is_read_for_it_is_bounded_and_in_the_index(Store):
    expired(1500, ago=9 * DAY)
    expired(1500, ago=12 * HOUR)
    live(3000)
    connection = connections[SessionRouter.alias]
    with connection.cursor() as cursor:
        # Outside of a transaction; without a vacuum PostgreSQL cannot know that the index has it all.
        analyze = {"sqlite": "ANALYZE", "postgresql": f"VACUUM ANALYZE {TABLE}", "mysql": f"ANALYZE TABLE {TABLE}"}
        cursor.execute(analyze[connection.vendor])
        if connection.vendor == "mysql":
            cursor.fetchall()
        with statements() as sent:
            assert target().ages(7, 100) == [100, 0, 0, 0, 0, 0, 0, 100]
        assert len(sent) == 8
        plans = []
        for sql in sent:
            assert re.search(r"LIMIT 100\)", sql)
            cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql)
            plans.append(str(cursor.fetchall()))
    alone = {"sqlite": "COVERING INDEX", "postgresql": "Index Only Scan", "mysql": "Using index"}[connection.vendor]
    assert [plan for plan in plans if "multisession_expiry" not in plan or alone not in plan] == []


def test_nothing_is_waiting(client):
    shown = chart("waiting", page(client))
    assert f"0 in {TABLE}" in shown
    assert "<svg" not in shown


@on("redis", "mongodb")
def test_where_the_server_expires_sessions_nothing_waits(client):
    run(rows=5)
    shown = page(client)
    assert "the server of this engine expires sessions by itself" in chart("waiting", shown)
    assert chart("purged", shown)


@on("memory")
def test_another_engine_has_no_chart_of_waiting_rows(client):
    run(rows=5)
    shown = page(client)
    assert chart("waiting", shown) == ""
    assert chart("purged", shown)


@on("memory")
@pytest.mark.parametrize("engine", ["file", "signed_cookies"])
def test_nor_has_one_that_is_not_purged(client, settings, engine, user, tmp_path):
    settings.SESSION_ENGINE, settings.SESSION_FILE_PATH = f"django.contrib.sessions.backends.{engine}", str(tmp_path)
    client.force_login(user)
    assert chart("waiting", page(client)) == ""


# What must not happen


@pytest.mark.parametrize("path", [LIST, f"{LIST}?{urlencode({'host': HOSTILE})}"])
def test_names_are_escaped(client, path):
    kept = run(host=HOSTILE, table=HOSTILE, reason=HOSTILE[:32])
    for shown in (page(client, path), page(client, f"{LIST}{kept.pk}/change/")):
        assert "<script>alert" not in shown
        assert escape(HOSTILE) in shown
    assert svg(chart("purged", page(client))) is not None


def test_nothing_that_a_content_security_policy_refuses(client):
    expired(3)
    run(rows=3)
    shown = page(client)
    for figure in (chart("purged", shown), chart("waiting", shown)):
        assert figure
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", figure)
    assert '<link href="/static/django_multisession/charts.css"' in shown


def test_who_is_nobody_has_to_sign_in(runs):
    response = Client().get(LIST)
    assert (response.status_code, response.url) == (302, f"/admin/login/?next={LIST}")


@pytest.mark.parametrize("path", ["", "1/change/"])
def test_who_has_no_permission_is_refused(runs, user, path):
    run(pk=1, rows=123_456)
    client = Client()
    client.force_login(user)
    response = client.get(LIST + path)
    assert response.status_code == 403
    assert b"123,456" not in response.content


@pytest.mark.parametrize("superuser", [False, True])
def test_nobody_changes_or_removes_them(client, user, superuser):
    allow(user, "add", "change", "delete")
    user.is_superuser = superuser
    user.save()
    kept = run(rows=5)
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}add/", {}).status_code == 403
    assert client.post(f"{LIST}{kept.pk}/change/", {"rows": 6}).status_code == 403
    assert client.post(f"{LIST}{kept.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": kept.pk, "post": "yes"})
    assert PurgeRun.objects.get().rows == 5
    shown = page(client)
    assert "delete_selected" not in shown
    assert f"{LIST}add/" not in shown


def test_texts_can_be_translated(client):
    run(rows=1_234_567)
    with translation.override("de"):
        purged, waiting = purge_charts.charts(PurgeRun.objects.all())
    assert "1.234.567" in purged.summary
    assert waiting.bars == []
