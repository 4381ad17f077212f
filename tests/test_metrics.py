"""Metrics by OpenTelemetry: what is counted, and that nothing is in the way where nobody measures."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from django_multisession import metrics
from django_multisession.backends.redis import SessionStore as RedisStore
from django_multisession.exceptions import EngineUnavailable
from django_multisession.purge import purge
from django_multisession.testing.stored import saved
from django_multisession.user_sessions import revoke_all

from . import servers
from .conftest import ENGINES

ROOT = Path(__file__).parents[1]
ENGINE_OF = {"sqlite": "db"}
USER = "_auth_user_id"


@pytest.fixture(params=["memory", "redis", "mongodb", "sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    assert request.param in ENGINES
    return str(request.param)


@pytest.fixture
def reader(Store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(api, "get_meter", provider.get_meter)  # the API takes a provider once per process
    monkeypatch.setattr(api, "get_meter_provider", lambda: provider)
    metrics.start_if_measured()
    yield reader
    metrics.stop()
    provider.shutdown()


def read(reader: InMemoryMetricReader) -> dict[str, dict[str, Any]]:
    """{name: {labels: value, or how many were measured}}"""
    found: dict[str, dict[str, Any]] = {}
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else []:
        points = found.setdefault(metric.name.removeprefix("django_multisession."), {})
        for point in metric.data.data_points:
            points[" ".join(map(str, point.attributes.values()))] = getattr(point, "count", None) or point.value
    return found


def test_saves_and_durations(Store, face, reader, engine_name):
    kind = ENGINE_OF.get(engine_name, engine_name)
    key = saved(face, Store, a=1)
    store = face(Store(key))
    store["b"] = 2
    store.save()
    found = read(reader)
    assert found["saves"] == {kind: 2}
    assert found["storage.duration"] == {f"{kind} {verb}": 1 for verb in ("insert", "read", "replace")}


@pytest.mark.parametrize("engine_name", ["memory"])
def test_the_buckets_tell_a_fast_store_from_a_slow_one(face, Store, reader):
    """The SDK's own are for milliseconds: all that takes less than 5 seconds would be in one of them."""
    saved(face, Store, a=1)
    metrics_of = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    [durations] = [each for each in metrics_of if each.name.endswith(".duration")]
    bounds = durations.data.data_points[0].explicit_bounds
    assert len([bound for bound in bounds if bound <= 0.01]) >= 5
    assert max(bounds) > 5  # MULTISESSION_TIMEOUT


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", ["redis"])
def test_a_cluster_is_measured_as_one_server_is(face, reader, engine_name):
    with override_settings(MULTISESSION_REDIS=servers.cluster().url):
        key = saved(face, RedisStore, a=1, **{USER: "7"})
        store = face(RedisStore(key))
        store["b"] = 2
        store.save()
        store.flush()
        revoke_all("7")
        found = read(reader)["storage.duration"]
    verbs = {labels.removeprefix("redis "): count for labels, count in found.items()}
    assert (verbs["insert"], verbs["read"], verbs["replace"]) == (1, 1, 1)
    assert verbs["remove"] >= 1  # of what others have left too


def test_conflicts_and_merges(Store, face, reader, engine_name):
    kind = ENGINE_OF.get(engine_name, engine_name)
    key = saved(face, Store, a=1)
    first, second = face(Store(key)), face(Store(key))
    for number, store in enumerate((first, second)):
        store[f"b{number}"] = 2
    first.save()
    second.save()
    found = read(reader)
    assert (found["conflicts"], found["merges"], found["saves"]) == ({kind: 1}, {"": 1}, {kind: 3})


def test_touches(Store, face, reader, clock, engine_name):
    key = saved(face, Store, a=1)
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        clock.shift(60)
        store = face(Store(key))
        store["a"] = 1
        store.save()
    assert read(reader)["touches"] == {ENGINE_OF.get(engine_name, engine_name): 1}


def test_endings_by_reason(Store, face, reader):
    for _ in range(3):
        saved(face, Store, **{USER: "7"})
    face(Store(saved(face, Store, **{USER: "7"}))).exists("x" * 32)
    store = face(Store(saved(face, Store, **{USER: "8"})))
    store.get("a")
    store.flush()
    revoke_all("7")
    with override_settings(MULTISESSION_MAX_PER_USER=1):
        for _ in range(3):
            saved(face, Store, **{USER: "9"})
    found = read(reader)["endings"]
    assert {reason: count for reason, count in found.items() if count} == {"revoked": 4, "logout": 1, "limit": 2}


def test_outages(Store, face, reader, monkeypatch, engine_name):
    kind = ENGINE_OF.get(engine_name, engine_name)
    metrics.stop()

    async def unreachable(self: Any, id: str) -> None:
        raise EngineUnavailable("gone fishing")

    monkeypatch.setattr(type(Store.storage), "read", unreachable)
    metrics.start()
    with pytest.raises(EngineUnavailable):
        face(Store("x" * 32)).load()
    found = read(reader)
    assert found["outages"] == {f"{kind} read": 1}
    assert found["storage.duration"] == {f"{kind} read": 1}
    metrics.stop()


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_purged_rows(Store, face, reader):
    for _ in range(3):
        store = face(Store())
        store["a"] = 1
        store.set_expiry(-3600)
        store.save()
    purge(grace=0)
    assert read(reader)["purged"] == {"django_multisession_session": 3}


@pytest.mark.parametrize("engine_name", ["redis"])
def test_nothing_is_replaced_where_nobody_measures(Store):
    before = dict(vars(type(Store.storage)))
    metrics.start_if_measured()  # the API alone is imported here, whose provider measures nothing
    assert dict(vars(type(Store.storage))) == before
    assert metrics._replaced == []


@pytest.mark.parametrize("engine_name", ["redis"])
def test_what_was_replaced_is_put_back(Store, reader):
    assert metrics._replaced
    replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in metrics._replaced]
    metrics.start()  # a second time
    assert [(owner, name, getattr(owner, name)) for owner, name, _ in metrics._replaced] == replaced
    metrics.stop()
    assert all(getattr(owner, name) is not function for owner, name, function in replaced)


def test_a_site_without_opentelemetry_does_not_import_it() -> None:
    code = """
import sys
from django.conf import settings
settings.configure(SECRET_KEY="x", INSTALLED_APPS=["django_multisession"], SESSION_ENGINE="tests.memory")
import django
django.setup()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    for name in metrics.COUNTERS:
        assert f"django_multisession_{name}_total" in asked
    assert "django_multisession_storage_duration_seconds_bucket" in asked
