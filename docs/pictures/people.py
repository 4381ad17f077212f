"""Users and their sessions, the harmless and the hostile, straight into the store of the site."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.serializers import JSONSerializer

from django_multisession import engine
from django_multisession.models import PurgeRun
from django_multisession.payload import codecs
from django_multisession.purge import loop
from django_multisession.records import Record, identify, utcnow
from django_multisession.twins import run_sync

from .agents import BROWSERS

ADDRESSES = "203.0.113.7", "2001:db8:85a3:8d3:1319:8a2e:370:7348", "198.51.100.254", None
NAMES = "ann", "müller-lüdenscheidt.von.und.zu@subdomain.example.org", "山田太郎", "محمد عبد الله", "W" * 150


def make(name: str, password: str, agents: Sequence[str]) -> User:
    """A user with a session for each agent, and some data in it."""
    user = User.objects.create_superuser(name, password=password)
    for number, agent in enumerate(agents):
        insert(random.Random(f"{name}{number}"), user, agent)  # noqa: S311 - the same pictures each time
    return user


def insert(chance: random.Random, user: User | None, user_agent: str) -> None:
    data: dict[str, Any] = {"visits": chance.randint(1, 99)}
    if chance.random() < 0.4:
        data["cart"] = {f"product-{number}": 1 for number in range(int(chance.lognormvariate(2, 1.2)))}
    if user:
        client = {"ip": chance.choice(ADDRESSES), "user_agent": user_agent}
        data |= {"_auth_user_id": str(user.pk), "_auth_user_backend": "", "_auth_user_hash": "", "_client": client}
    id = identify(f"{chance.getrandbits(128):032x}")
    age = timedelta(days=min(13.5, chance.expovariate(0.3)))
    updated = utcnow() - age * min(1.0, chance.expovariate(3))
    expires = updated + timedelta(seconds=settings.SESSION_COOKIE_AGE)
    payload = codecs.encode(data, id, JSONSerializer)
    record = Record(id, payload, str(user.pk) if user else None, utcnow() - age, updated, expires, version=1)
    run_sync(engine.store().storage.insert(record))


def many(chance: random.Random, number: int) -> list[str]:
    return chance.choices(BROWSERS, (9, 7, 4, 3), k=number)


def expired(days: Sequence[int]) -> None:
    """Rows that wait for a purge, so many for each day since."""
    store = engine.store().storage
    for day, rows in enumerate(days):
        over = utcnow() - timedelta(days=day + 0.5)
        for row in range(rows):
            id = identify(f"expired {day} {row}")
            run_sync(store.insert(Record(id, b"", None, over, over, over, version=1)))


def purges(number: int) -> None:
    """One each day; one of them left rows, one failed."""
    chance = random.Random(7)  # noqa: S311
    for day in range(number, 0, -1):
        started = utcnow() - timedelta(days=day)
        reason = {2: loop.MAX_SECONDS, 5: loop.ERROR}.get(day, loop.DONE)
        PurgeRun.objects.create(
            table="django_multisession_session",
            started_at=started,
            ended_at=started + timedelta(seconds=chance.randint(1, 4000)),
            rows=chance.randint(0, 2_000_000),
            batches=chance.randint(1, 2000),
            more=reason != loop.DONE,
            reason=reason,
            host="worker-7f9c6d5b8-x2x9k.eu-central-1.compute.internal",
        )
