"""`kill -9` between any two things that are sent to the server, while a session begins, moves or ends.

A process is forked for each place at which it can be killed: before the first thing that is sent, before the second,
and so on, until one comes through. Another then looks at what is left.
"""

import json

import pytest

from ..children import child
from ..conftest import ENGINES

pytestmark = pytest.mark.slow

SENDS = {
    "redis": "django_multisession.backends.redis.RedisStorage",
    "mongodb": "django_multisession.backends.mongodb.MongoStorage",
    "sql": "django_multisession.backends.db.DbStorage",
}

CODE = """
import asyncio, os, signal, traceback
from asgiref.sync import async_to_sync
from django.utils.module_loading import import_string
from importlib import import_module
from django_multisession import user_sessions
from django_multisession.twins import run_sync

USER = "_auth_user_id"
asynchronous = given["face"] == "async"
settings.MULTISESSION_MAX_PER_USER = 3
Storage = import_string(given["storage"])
Store = import_module(settings.SESSION_ENGINE).SessionStore

Store.storage  # imports what each fork would otherwise import anew; connects to nothing
if asynchronous:
    async_to_sync(asyncio.sleep)(0)

def call(object, name, *arguments, **options):
    if not asynchronous:
        return getattr(object, name)(*arguments, **options)
    return async_to_sync(getattr(object, "a" + name))(*arguments, **options)

def new(**data):
    session = Store()
    session._session_cache = data
    call(session, "save")
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
    for name in {"_ask", "_send"} & vars(Storage).keys():
        setattr(Storage, name, watch(getattr(Storage, name)))

def prepare(deed):
    for number in range(3):
        new(**{USER: "1"})
    return new(**{USER: "1"} if deed in (cycle, log_out) else {"cart": 1})

def log_in(session):
    call(session, "cycle_key")
    session[USER] = "1"
    call(session, "save")

def cycle(session):
    call(session, "cycle_key")

def log_out(session):
    call(session, "flush")

def revoke_all(session):
    call(user_sessions, "revoke_all", "1")

def revoke_everyone(session):
    call(user_sessions, "revoke_everyone")

def everything():
    page, after = [], None
    while True:
        part = run_sync(Store.storage.scan(after, 100))
        page += part
        if (after := part.next) is None:
            return page

def look(deed, came_through):
    there = everything()
    signed_in = [record.id for record in there if record.user_id]
    listed = [record.id for record in run_sync(Store.storage.of_user("1"))]
    assert sorted(listed) == sorted(signed_in), "the index has too little"
    assert len(signed_in) <= 4
    assert all(record.user_id in (None, "1") for record in there)
    if came_through:
        assert len(signed_in) == {log_in: 3, cycle: 3, log_out: 2}.get(deed, 0), len(signed_in)
    # And whoever comes next finds all in order.
    log_in(new(cart=1))
    assert call(user_sessions, "count", "1") <= 3
    assert call(user_sessions, "revoke_all", "1").ended <= 3
    assert not [record for record in everything() if record.user_id]
    run_sync(Store.storage.remove([record.id for record in everything()]))

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

def do(deed, number):
    session = prepare(deed)
    die_before(number)
    deed(session)

places = dict.fromkeys(given["deeds"], 0)
for name in places:
    deed = globals()[name]
    while True:
        status = forked(do, deed, places[name] + 1)
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0, status
        assert forked(look, deed, not killed) == 0, f"{name}, killed before {places[name] + 1}"
        if not killed:
            break
        places[name] += 1
print(json.dumps(places))
"""

# What is sent, at least: a log-in inserts a copy, deletes the old record, links the user, looks and evicts.
DEEDS = {"log_in": 6, "cycle": 3, "log_out": 1, "revoke_all": 3, "revoke_everyone": 2}


@pytest.fixture(params=[name for name in ENGINES if name != "memory"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("face_name", ["sync", "async"])
def test_what_is_left_is_in_order(Store, engine_name, face_name):
    storage = SENDS.get(engine_name, SENDS["sql"])
    process = child(CODE, storage=storage, face=face_name, deeds=list(DEEDS))
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert all(sent >= DEEDS[deed] for deed, sent in json.loads(printed).items())
