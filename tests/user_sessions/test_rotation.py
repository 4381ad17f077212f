"""A cycled key is no log-out for the requests beside it, and a log-out, a log-in and a new password win over it."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth import HASH_SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import connections
from django.test import AsyncClient, Client, override_settings

from django_multisession import user_sessions
from django_multisession.exceptions import SessionEnded, TooManySessions
from django_multisession.records import identify
from django_multisession.testing.stored import saved, stored
from django_multisession.twins import run_sync
from django_multisession.user_sessions import passes, rotation

from ..conftest import ENGINES
from ..interleaving import interleave_async, interleave_sync, so_many
from ..test_requests import ann, key_of, sessions_of  # noqa: F401  a fixture

BATCH = 50
USER = {"_auth_user_id": "9"}


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _touch_at_once() -> Iterator[None]:
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        yield


def pair(face: Any, Store: Any, **data: Any) -> tuple[Any, Any]:
    """Two requests that have loaded one session."""
    key = saved(face, Store, **(data or USER))
    found = face(Store(key)), face(Store(key))
    for each in found:
        each.load()
        assert each.has_key("_auth_user_id") or data
    return found


class TestSiblings:
    @pytest.mark.parametrize("change", ["write", "nothing", "unasked"])
    def test_a_save_goes_on_under_the_new_key(self, Store, face, change):
        first, second = pair(face, Store)
        first.cycle_key()
        if change == "write":
            second["b"] = 2
        second.modified = change != "unasked"
        second.save()
        assert second.session_key == first.session_key
        assert stored(face, Store, first.session_key) == {**USER, **({"b": 2} if change == "write" else {})}

    def test_an_unchanged_save_within_the_window_does_too(self, Store, face):
        first, second = pair(face, Store)
        first.cycle_key()
        with override_settings(MULTISESSION_TOUCH_AFTER=None):
            second.save()
        assert second.session_key == first.session_key

    def test_a_second_rotation_ends_under_the_same_key(self, Store, face, verbs):
        first, second = pair(face, Store)
        first.cycle_key()
        second["b"] = 2
        second.cycle_key()
        assert second.session_key == first.session_key
        assert second.modified
        second.save()
        assert stored(face, Store, first.session_key) == {**USER, "b": 2}
        assert len(verbs.of_user("9")) == 1

    def test_a_chain_of_rotations_is_followed(self, Store, face):
        first, second = pair(face, Store)
        for _ in range(3):
            first.cycle_key()
        second["b"] = 2
        second.save()
        assert second.session_key == first.session_key
        first["c"] = 3
        first.save()
        assert stored(face, Store, first.session_key) == {**USER, "b": 2, "c": 3}

    def test_the_old_key_finds_nothing(self, Store, face, verbs):
        first, second = pair(face, Store)
        old_key = second.session_key
        first.cycle_key()
        assert face(Store()).exists(old_key) is False
        late = face(Store(old_key))
        assert late.load() == {}
        assert late.session_key is None
        assert [record.user_id for record in verbs.scan(None, 10)] == ["9"]

    def test_who_has_not_loaded_before_is_refused(self, Store, face):
        first, second = pair(face, Store)
        first.cycle_key()
        late = face(Store(second.session_key))
        late.clear()
        with pytest.raises(SessionEnded):
            late.save()

    def test_nothing_at_rest_gives_the_new_key_away(self, Store, face, verbs):
        first, second = pair(face, Store)
        old_key = second.session_key
        first.cycle_key()
        mark = verbs.read(rotation.mark_id(identify(old_key)))
        assert mark.user_id is None
        assert first.session_key.encode() not in mark.payload
        assert old_key.encode() not in mark.payload
        assert run_sync(rotation.successor(Store.storage, identify(old_key), "a" * 32)) is None
        assert run_sync(rotation.successor(Store.storage, identify(old_key), old_key)) == first.session_key

    def test_the_mark_is_soon_gone(self, Store, face, clock):
        first, second = pair(face, Store)
        first.cycle_key()
        clock.shift(rotation.MARK_AGE.total_seconds() + 1)
        second["b"] = 2
        with pytest.raises(SessionEnded):
            second.save()

    def test_a_forged_mark_leads_nowhere(self, Store, face, verbs):
        first, second = pair(face, Store)
        victim = saved(face, Store, _auth_user_id="8")
        with override_settings(SECRET_KEY="another"):
            verbs.insert(rotation.mark(identify(first.session_key), first.session_key, victim))
        first.flush()
        second["b"] = 2
        with pytest.raises(SessionEnded):
            second.save()
        assert face(Store()).exists(victim) is True

    @pytest.mark.parametrize("on_conflict", ["overwrite", "raise"])
    def test_it_is_no_conflict(self, Store, face, on_conflict):
        first, second = pair(face, Store)
        first.cycle_key()
        with override_settings(MULTISESSION_ON_CONFLICT=on_conflict):
            second["b"] = 2
            second.save()
        assert stored(face, Store, first.session_key) == {**USER, "b": 2}

    def test_an_anonymous_session_is_not_followed(self, Store, face):
        first, second = pair(face, Store, a=1)
        first.cycle_key()
        second["b"] = 2
        with pytest.raises(SessionEnded):
            second.save()


class TestLogOut:
    def test_with_the_old_key_it_ends_what_goes_on(self, Store, face, verbs):
        first, second = pair(face, Store)
        first.cycle_key()
        second.flush()
        assert verbs.of_user("9") == []
        first["b"] = 2
        with pytest.raises(SessionEnded):
            first.save()

    def test_it_follows_a_chain(self, Store, face, verbs):
        first, second = pair(face, Store)
        first.cycle_key()
        first.cycle_key()
        second.flush()
        assert verbs.of_user("9") == []

    def test_of_the_new_key_ends_the_siblings(self, Store, face, verbs):
        first, second = pair(face, Store)
        first.cycle_key()
        first.flush()
        second["b"] = 2
        with pytest.raises(SessionEnded):
            second.save()
        assert verbs.of_user("9") == []

    def test_a_revocation_of_the_old_id_ends_what_goes_on(self, Store, face, verbs, monkeypatch):
        first, _ = pair(face, Store)
        functions = face.functions(user_sessions)
        [listed] = functions.sessions_of("9")
        storage = Store.storage if face.name == "sync" else face.runner.run(_running(Store))
        of_user = storage.of_user

        async def cycled_after_the_list(self: Any, user_id: str) -> Any:
            records = await of_user(user_id)
            await first_store._cycle_key(storage)
            return records

        first_store = getattr(first, "store", first)
        monkeypatch.setattr(type(storage), "of_user", cycled_after_the_list)
        assert functions.revoke("9", listed.id) is True
        monkeypatch.undo()
        assert verbs.of_user("9") == []

    @pytest.mark.parametrize("engine_name", ["redis"], indirect=True)  # of the others a list is one statement
    def test_one_that_has_the_ids_and_not_yet_the_records_finds_it(self, Store, face, verbs, monkeypatch):
        first, _ = pair(face, Store)
        storage = Store.storage if face.name == "sync" else face.runner.run(_running(Store))
        read_all, cycled = storage._read_all, []

        async def cycled_before(self: Any, *arguments: Any) -> Any:
            if not cycled:
                cycled.append(await getattr(first, "store", first)._cycle_key(storage))
            return await read_all(*arguments)

        monkeypatch.setattr(type(storage), "_read_all", cycled_before)
        assert face.functions(user_sessions).revoke_all("9").ended == 1
        assert verbs.of_user("9") == []

    def test_that_of_everyone_passes_none_by(self, Store, face, verbs, monkeypatch):
        """Their keys are cycled between two pages: copies are behind the page, and originals before it are gone."""
        stores = [pair(face, Store, _auth_user_id=str(number))[0] for number in range(60)]
        storage = Store.storage if face.name == "sync" else face.runner.run(_running(Store))
        scan, pages = storage.scan, []

        async def cycled_after_the_third(self: Any, *arguments: Any) -> Any:
            pages.append(page := await scan(*arguments))
            for each in stores if len(pages) == 3 else ():
                with suppress(SessionEnded):
                    await getattr(each, "store", each)._cycle_key(storage)
            return page

        monkeypatch.setattr(passes, "PAGE", 10)
        monkeypatch.setattr(type(storage), "scan", cycled_after_the_third)
        face.functions(user_sessions).revoke_everyone()
        monkeypatch.undo()
        assert [record for record in verbs.scan(None, 1000) if record.user_id] == []


async def _running(Store: Any) -> Any:
    return Store.astorage


@pytest.mark.slow
class TestInterleavings:
    """1,000 for each engine and face in all, or `so_many`, storage method by storage method."""

    def test_siblings_that_all_rotate(self, Store, face, verbs, engine_name):
        chance = random.Random(5)
        for _ in range(so_many(100, engine_name)):
            key = saved(face, Store, **USER)
            stores = race(Store, face, key, [rotate_and_save(n) for n in range(4)], chance)
            assert {store.session_key for store in stores} != {key}
            assert len({store.session_key for store in stores}) == 1
            expected = {**USER, **{f"key{n}": n for n in range(4)}}
            assert stored(face, Store, stores[0].session_key) == expected
            verbs.remove([identify(stores[0].session_key)])

    def test_a_rotation_and_saves(self, Store, face, verbs, engine_name):
        chance = random.Random(6)
        for _ in range(so_many(200, engine_name)):
            key = saved(face, Store, **USER)
            stores = race(Store, face, key, [rotate_and_save(0), save(1), save(2)], chance)
            assert {store.session_key for store in stores} <= {key, stores[0].session_key}
            assert stored(face, Store, stores[0].session_key) == {**USER, "key0": 0, "key1": 1, "key2": 2}
            verbs.remove([identify(stores[0].session_key)])

    def test_a_log_out_wins(self, Store, face, verbs, engine_name):
        chance = random.Random(7)
        for _ in range(so_many(500, engine_name)):
            key = saved(face, Store, **USER)
            race(Store, face, key, [rotate_and_save(0), rotate_and_save(1), log_out, save(2)], chance, strict=False)
            assert verbs.of_user("9") == []
            assert verbs.scan(None, BATCH) == []

    def test_a_revocation_wins(self, Store, face, verbs, engine_name):
        chance = random.Random(8)
        for _ in range(so_many(200, engine_name)):
            key = saved(face, Store, **USER)
            race(Store, face, key, [rotate_and_save(0), revoke_all, save(1)], chance, strict=False)
            assert verbs.of_user("9") == []

    def test_a_rotation_is_one_session_for_the_limit(self, Store, face, verbs, engine_name):
        chance = random.Random(9)
        with override_settings(MULTISESSION_MAX_PER_USER=2):
            for _ in range(so_many(100, engine_name)):
                key = saved(face, Store, **USER)
                race(Store, face, key, [rotate_and_save(0), log_in], chance)
                assert len(verbs.of_user("9")) == 2
                verbs.remove([record.id for record in verbs.of_user("9")])


def rotate_and_save(number: int) -> Any:
    async def request(session: Any, storage: Any) -> None:
        await session._cycle_key(storage)
        session[f"key{number}"] = number
        await session._save(storage)

    return request


def save(number: int) -> Any:
    async def request(session: Any, storage: Any) -> None:
        session[f"key{number}"] = number
        await session._save(storage)

    return request


async def log_out(session: Any, storage: Any) -> None:
    session.clear()
    await session._delete(storage)


async def revoke_all(session: Any, storage: Any) -> None:
    while found := await storage.of_user("9"):
        await rotation.remove_all(storage, [record.id for record in found])


async def log_in(session: Any, storage: Any) -> None:
    from django_multisession.twins import ASYNC
    from django_multisession.user_sessions import quota

    other = type(session)()
    other._session_cache = dict(USER)
    await other._create(storage)
    surplus = await quota.surplus(ASYNC, storage, other._record, "9")
    assert surplus == []


def race(Store: Any, face: Any, key: str, requests: list[Any], chance: random.Random, strict: bool = True) -> list[Any]:
    """The requests' stores, each loaded before any goes on; `strict`: none of them may be told that it was ended."""
    stores = [Store(key) for _ in requests]

    def of(store: Any, request: Any) -> Any:
        async def run(storage: Any) -> None:
            with suppress(UpdateError, *(() if strict else (SessionEnded,))):
                await request(store, storage)
            if strict:
                assert store.session_key

        return run

    async def on_the_loop() -> None:
        for store in stores:
            await store._data(Store.astorage)
        await interleave_async(Store.astorage, running, order)

    running = [of(store, request) for store, request in zip(stores, requests, strict=True)]
    order = [chance.randrange(len(requests)) for _ in range(12 * len(requests))]
    if face.name == "async":
        face.runner.run(on_the_loop())
        return stores
    for store in stores:
        run_sync(store._data(Store.storage))
    interleave_sync(Store.storage, running, order)
    return stores


class TestRequests:
    """Django's own middleware and `django.contrib.auth`, which cycles the key of a log-in with an old secret."""

    @pytest.mark.parametrize("page", ["/count/", "/count_in_a_transaction/"])
    def test_a_rotated_secret_logs_none_of_six_threads_out(self, Store, ann, monkeypatch, page):  # noqa: F811
        key, barrier = signed_in_with_the_old_secret(), Barrier(6)
        load = Store._load

        async def together(self: Any, storage: Any) -> Any:
            found = await load(self, storage)
            if self.session_key == key:
                barrier.wait(30)
            return found

        def request(_: int) -> Any:
            browser = Client()
            browser.cookies["sessionid"] = key
            try:
                return browser.get(page), key_of(browser)
            finally:
                connections.close_all()

        monkeypatch.setattr(Store, "_load", together)
        with override_settings(SECRET_KEY_FALLBACKS=["old"]), ThreadPoolExecutor(6) as pool:
            self.check(list(pool.map(request, range(6))), key, Store, ann)

    def test_a_rotated_secret_logs_none_of_six_tasks_out(self, Store, ann, runner, monkeypatch):  # noqa: F811
        key, load = signed_in_with_the_old_secret(), Store._load

        async def requests() -> Any:
            barrier = asyncio.Barrier(6)

            async def together(self: Any, storage: Any) -> Any:
                found = await load(self, storage)
                if self.session_key == key:
                    await barrier.wait()
                return found

            async def request() -> Any:
                browser = AsyncClient()
                browser.cookies["sessionid"] = key
                return await browser.get("/acount_of_user/"), key_of(browser)

            monkeypatch.setattr(Store, "_load", together)
            return await asyncio.gather(*(request() for _ in range(6)))

        with override_settings(SECRET_KEY_FALLBACKS=["old"]):
            self.check(runner.run(requests()), key, Store, ann)

    def check(self, answers: Any, old_key: str, Store: Any, user: Any) -> None:
        assert {(response.status_code, response.json()["user"]) for response, _ in answers} == {(200, "ann")}
        [new_key] = {cookie for _, cookie in answers}
        assert new_key != old_key
        assert [identify(new_key)] == sessions_of(Store, user)

    def test_a_new_password_kills_the_old_key_at_once(self, Store, ann):  # noqa: F811
        client = Client()
        client.get("/sign_in/")
        thief = Store(key_of(client))
        assert thief["_auth_user_id"] == str(ann.pk)
        client.get("/change_password/")
        for change in ("stolen", None):
            if change:
                thief[change] = True
            thief.modified = True
            with pytest.raises(SessionEnded):
                thief.save()
        with pytest.raises(SessionEnded):
            thief.cycle_key()
        assert thief.session_key != key_of(client)
        assert "stolen" not in Store(key_of(client))

    @pytest.mark.parametrize("order", ["documented", "reverse"])
    def test_a_new_password_gives_a_thief_no_key_that_lasts(self, Store, face, ann, order):  # noqa: F811
        session = face(Store())
        session.update(log_in_of(ann))
        session.save()
        thief = face(Store(session.session_key))
        thief.load()
        assert thief.get("_auth_user_id")
        if order == "documented":
            change_password(face, ann)
        session.cycle_key()
        thief["stolen"] = True
        if order == "documented":
            with pytest.raises(SessionEnded):
                thief.save()
        else:  # nobody can know yet
            thief.save()
            change_password(face, ann)
        session[HASH_SESSION_KEY] = ann.get_session_auth_hash()
        session.save()
        assert session.session_key != thief.session_key
        assert face(Store()).exists(thief.session_key) is False
        assert face(Store()).exists(session.session_key) is True

    @pytest.mark.parametrize("wrong", [{"_auth_user_backend": "renamed.Backend"}, {"_auth_user_id": "no number"}])
    def test_a_log_in_that_django_takes_for_nobodys_is_cycled_too(self, Store, face, ann, wrong):  # noqa: F811
        session = face(Store())
        session.update({**log_in_of(ann), **wrong})
        session.save()
        key = session.session_key
        session.cycle_key()
        assert face(Store()).exists(session.session_key) is True
        assert face(Store()).exists(key) is False

    def test_a_log_in_kills_the_planted_key_at_once(self, Store, ann):  # noqa: F811
        client = Client()
        client.get("/count/")
        planted = Store(key_of(client))
        assert planted["count"] == 1
        client.get("/sign_in/")
        planted["b"] = 1
        with pytest.raises(SessionEnded):
            planted.save()
        assert planted.session_key != key_of(client)

    @pytest.mark.parametrize("on_max", ["evict", "refuse"])
    def test_a_log_in_between_the_steps_finds_one_session(self, Store, face, verbs, on_max, monkeypatch):
        first = face(Store(saved(face, Store, **USER)))
        insert, other = type(Store.storage).insert, []

        async def and_then_a_log_in(self: Any, record: Any) -> bool:
            done = await insert(self, record)
            if record.user_id == "9" and not other:
                other.append(None)
                await in_between(self)
            return bool(done)

        async def in_between(storage: Any) -> None:
            session = Store()
            session._session_cache = dict(USER)
            await session._create(storage)
            from django_multisession import twins
            from django_multisession.user_sessions import quota

            other.append(await quota.surplus(twins.ASYNC, storage, session._record, "9"))

        monkeypatch.setattr(type(Store.storage), "insert", and_then_a_log_in)
        with override_settings(MULTISESSION_MAX_PER_USER=2, MULTISESSION_ON_MAX=on_max), suppress(TooManySessions):
            first.cycle_key()
        assert other == [None, []]
        assert len(verbs.of_user("9")) == 2


def signed_in_with_the_old_secret() -> str:
    client = Client()
    with override_settings(SECRET_KEY="old"):
        client.get("/sign_in/")
    return key_of(client)


def log_in_of(user: Any) -> dict[str, Any]:
    backend = "django.contrib.auth.backends.ModelBackend"
    return {
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": backend,
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }


def change_password(face: Any, user: Any) -> None:
    """Without the hook that would end the thief's session by itself."""
    user.set_password("new")
    face.run(lambda: get_user_model().objects.filter(pk=user.pk).update(password=user.password))
