"""`kill -9` between any two things that are sent to either side, while a session is taken over, handed back or ended.

A process is forked for each place at which it can be killed, until one comes through. Another then looks at what is
left: what was live is there, whole; what was ended is gone, in every phase; and a log-out ends it for good.
"""

import json

import pytest

from tests.children import child

from .conftest import DJANGO

pytestmark = pytest.mark.slow

OURS = "django_multisession.backends."
SIDES = {
    "db-redis": (f"{DJANGO}db", f"{OURS}redis"),
    "cache-redis": (f"{DJANGO}cache", f"{OURS}redis"),
    "file-redis": (f"{DJANGO}file", f"{OURS}redis"),
    "cache-sqlite": (f"{DJANGO}cache", f"{OURS}db"),
    "db-sqlite": (f"{DJANGO}db", f"{OURS}db"),
    "ours: sqlite-redis": (f"{OURS}db", f"{OURS}redis"),
    "ours: redis-sqlite": (f"{OURS}redis", f"{OURS}db"),
}

CODE = """
import asyncio, os, signal, traceback
from dataclasses import replace
from importlib import import_module
from asgiref.sync import async_to_sync
from django_multisession import user_sessions
from django_multisession.backends import db, moving, redis
from django_multisession.backends.moving import bulk, foreign
from django_multisession.backends.moving.plan import plan
from django_multisession.twins import run_sync

asynchronous = given["face"] == "async"
old, new = (import_module(settings.MULTISESSION_MOVE[side]).SessionStore for side in ("from", "to"))
DATA = {"a": 1, "_auth_user_id": "9", "_login_at": 1_000_000_000}
bulk.SETTLED = 0

def at(phase):
    return type("SessionStore", (moving.SessionStore,), {"_plan": staticmethod(lambda: replace(plan(), phase=phase))})

def call(object, name, *arguments, **options):
    if not asynchronous:
        return getattr(object, name)(*arguments, **options)
    return async_to_sync(getattr(object, "a" + name))(*arguments, **options)

def saved(store):
    session = store()
    session._session_cache = dict(DATA)
    session.save()
    return session.session_key

def loaded(phase, key):
    session = at(phase)(key)
    session._session_cache = call(session, "load")
    return session

def die_before(number):
    sent = []
    def watch(original):
        async def ask(self, *arguments, **options):
            sent.append(1)
            if len(sent) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return await original(self, *arguments, **options)
        return ask
    for storage in (db.DbStorage, redis.RedisStorage, foreign.Foreign):
        for name in {"_ask", "_send"} & vars(storage).keys():
            setattr(storage, name, watch(getattr(storage, name)))

def take_over(key):
    assert loaded("move", key)._session_cache == DATA

def hand_back(key):
    assert loaded("back", key)._session_cache == DATA

def log_out(key):
    call(loaded("move", key), "flush")

def log_out_in_prepare(key):
    call(loaded("prepare", key), "flush")

def log_out_in_back(key):
    call(loaded("back", key), "flush")

def cycle(key):
    call(loaded("move", key), "cycle_key")

def revoke_all(key):
    call(user_sessions, "revoke_all", DATA["_auth_user_id"])

def move(key):
    call(moving, "move")

def save_in_prepare(key):
    session = loaded("prepare", key)
    session._session_cache["b"] = 2
    call(session, "save")

ENDS = {"log_out", "log_out_in_prepare", "log_out_in_back", "cycle", "revoke_all"}
FROM_NEW = {"hand_back", "log_out_in_back"}

def prepare(deed):
    run_sync(new.storage.remove([bulk.LEASE_ID]))  # which a move that was killed leaves for a minute
    return saved(at("move") if deed in FROM_NEW else old)

def everywhere(key):
    return [bool(call(at(phase)(), "exists", key)) for phase in ("prepare", "back", "move")]

def look(deed, key, came_through):
    if deed not in ENDS:
        data = call(at("move")(key), "load")
        assert {**data, **DATA} == data, data  # nothing live is lost
        if deed == "save_in_prepare" and came_through:
            assert data["b"] == 2
        assert everywhere(key) == [True] * 3
    elif came_through and deed != "revoke_all":
        assert everywhere(key) == [False] * 3
    elif came_through:
        assert not call(at("move")(), "exists", key)
    # Whatever is left: a copy, or none. Who ends it now has ended it on both sides, for good.
    if deed in ("revoke_all", "cycle"):
        call(user_sessions, "revoke_all", DATA["_auth_user_id"])
    call(loaded("move", key), "delete", key)
    assert everywhere(key) == [False] * 3
    assert call(user_sessions, "count", DATA["_auth_user_id"]) == 0, "in a list"
    moved = bulk.move()
    assert everywhere(key) == [False] * 3 and moved.reason in ("done", "running"), moved
    assert not call(new(), "exists", key)

def forked(function, *arguments):
    child = os.fork()
    if not child:
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def do(deed, key, number):
    die_before(number)
    globals()[deed](key)

def new_key(deed):
    reader, writer = os.pipe()
    def tell():
        os.write(writer, prepare(deed).encode())
    assert forked(tell) == 0
    return os.read(reader, 100).decode()

places = dict.fromkeys(given["deeds"], 0)
for deed in places:
    while True:
        DATA["_auth_user_id"] = str(int.from_bytes(os.urandom(4)))  # whom no mark of before means
        key = new_key(deed)
        status = forked(do, deed, key, places[deed] + 1)
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0, status
        assert forked(look, deed, key, not killed) == 0, f"{deed}, killed before {places[deed] + 1}"
        if not killed:
            break
        places[deed] += 1
print(json.dumps(places))
"""

# What is sent, at least, to the two sides.
DEEDS = {
    "take_over": 8, "hand_back": 5, "log_out": 4, "log_out_in_prepare": 5, "log_out_in_back": 5, "cycle": 6,
    "revoke_all": 3, "move": 8, "save_in_prepare": 4,
}  # fmt: skip


@pytest.fixture
def new_name():
    return "redis"


@pytest.mark.parametrize("face_name", ["sync", "async"])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_what_is_left_is_in_order(site, settings, tmp_path, sides, face_name):
    old, new = sides
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": settings.REDIS_URL}
    more = {
        "MULTISESSION_MOVE": {"from": old, "to": new, "phase": "move"},
        "SESSION_FILE_PATH": str(tmp_path),
        "CACHES": {**settings.CACHES, "sessions": cache},
        "SESSION_CACHE_ALIAS": "sessions",
    }
    process = child(CODE, face=face_name, deeds=list(DEEDS), more=more)
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert all(sent >= DEEDS[deed] for deed, sent in json.loads(printed).items()), printed
