"""Two tenants of django-tenants, which sets the schema whenever a cursor is asked for, on one persistent connection."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections

from tests import servers

pytestmark = [pytest.mark.slow, pytest.mark.skipif("postgres" in servers.MISSING, reason="PostgreSQL is missing")]

SITE = """
import json, sys
import dj_database_url
import django
from django.conf import settings

SHARED = ["django_tenants", "tests.packages.tenants", "django.contrib.contenttypes"]
TENANTS = ["django.contrib.contenttypes", "django.contrib.auth", "django_multisession"]
settings.configure(
    SECRET_KEY="x", USE_TZ=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.packages.tenants.urls",
    DATABASES={"default": {
        **dj_database_url.parse(sys.argv[1]), "ENGINE": "django_tenants.postgresql_backend", "CONN_MAX_AGE": None,
    }},
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    SHARED_APPS=SHARED, TENANT_APPS=TENANTS, INSTALLED_APPS=list(dict.fromkeys(SHARED + TENANTS)),
    TENANT_MODEL="tenants.Tenant", TENANT_DOMAIN_MODEL="tenants.Domain",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    MIDDLEWARE=[
        "django_tenants.middleware.main.TenantMainMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE=sys.argv[2], MULTISESSION_REDIS=sys.argv[3],
)
django.setup()

from django.core.management import call_command
from django.test import Client
from django_tenants.utils import schema_context
from tests.packages.tenants.models import Domain, Tenant
from django_multisession import engine
from django_multisession.models import Session
from django_multisession.purge import purge

call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0)
for name in ("red", "blue"):
    tenant = Tenant(schema_name=name, name=name)
    tenant.save(verbosity=0)
    Domain.objects.create(tenant=tenant, domain=f"{name}.example.com", is_primary=True)

def page(client, name):
    response = client.get("/count/", headers={"host": f"{name}.example.com"})
    return response.status_code == 200 and response.json()

def rows(name):
    with schema_context(name):
        return Session.objects.count()
"""

PAGES = """
red, blue, thief = Client(), Client(), Client()
pages = [page(red, "red"), page(blue, "blue"), page(red, "red"), page(red, "red"), page(red, "red"), page(blue, "blue")]
thief.cookies["sessionid"] = key = red.cookies["sessionid"].value
SessionStore = engine.store_class()
with schema_context("red"):
    there = [SessionStore(key).get("count") for _ in range(2)]
stolen = page(thief, "blue")
with schema_context("blue"):
    here = SessionStore().exists(key)
print(json.dumps({"pages": pages, "stolen": stolen, "there": there, "here": here, "rows": [rows("red"), rows("blue")]}))
"""

PURGES = """
for name in ("red", "blue"):
    page(Client(), name)
    with schema_context(name):
        Session.objects.update(expires_at=5)

def of_the_other(progress):
    with schema_context("blue"):
        reasons.append(purge().reason)

reasons = []
with schema_context("red"):
    reasons.append(purge(progress=of_the_other).reason)
print(json.dumps({"reasons": reasons, "rows": [rows("red"), rows("blue")]}))
"""


@pytest.fixture
def database() -> Iterator[str]:
    """A database of the test's own on the run's server."""
    with connections["postgres"].cursor() as cursor:
        cursor.execute("CREATE DATABASE tenants")
        yield urlsplit(servers.url_of("postgres") or "")._replace(path="/tenants").geturl()
        cursor.execute("DROP DATABASE tenants WITH (FORCE)")


def run(code: str, database: str, engine: str = "db") -> Any:
    arguments = [database, f"django_multisession.backends.{engine}", servers.url_of("redis")]
    done = subprocess.run(
        [sys.executable, "-c", SITE + code, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_each_tenant_has_sessions_of_its_own(database: str, engine: str) -> None:
    """The copy of another tenant's session, which lies under the same key in Redis, is nobody else's."""
    found = run(PAGES, database, engine)
    tenants = ["red", "blue", "red", "red", "red", "blue"]
    counts = [1, 1, 2, 3, 4, 2]
    assert found["pages"] == [{"tenant": tenant, "count": n} for tenant, n in zip(tenants, counts, strict=True)]
    assert found["stolen"] == {"tenant": "blue", "count": 1}
    assert (found["there"], found["here"]) == ([4, 4], False)
    assert found["rows"] == [1, 2]


def test_each_tenant_is_purged_by_itself(database: str) -> None:
    """Also while another one is: theirs are different tables, and so different leases."""
    assert run(PURGES, database) == {"reasons": ["done", "done"], "rows": [0, 0]}
