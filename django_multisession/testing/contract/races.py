"""Promise: requests of one session at the same time lose nothing of one another."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from django.contrib.sessions.backends.base import CreateError, UpdateError

from ...twins import run_sync
from ..stored import KEY, USER_ID, close_connections, saved


class TestRaces:
    """Atomicity, where only real servers can show it."""

    def test_one_of_50_threads_creates_a_key(self, Store):
        barrier = Barrier(50)

        def create(number: int) -> bool:
            session = Store(KEY)
            session.clear()
            session["number"] = number
            barrier.wait(30)
            try:
                session.save(must_create=True)
            except CreateError:
                return False
            finally:
                close_connections()
            return True

        with ThreadPoolExecutor(50) as pool:
            won = list(pool.map(create, range(50)))
        assert won.count(True) == 1
        assert Store(KEY)["number"] == won.index(True)

    def test_one_of_50_tasks_creates_a_key(self, Store, runner):
        async def create(number: int) -> bool:
            session = Store(KEY)
            session.clear()
            await session.aset("number", number)
            try:
                await session.asave(must_create=True)
            except CreateError:
                return False
            return True

        async def race() -> list[bool]:
            return await asyncio.gather(*map(create, range(50)))

        won = runner.run(race())
        assert won.count(True) == 1
        assert Store(KEY)["number"] == won.index(True)

    def test_no_thread_revives_what_another_flushed(self, Store):
        for _ in range(5):
            key = saved(lambda store: store, Store, **{USER_ID: "9"})
            barrier = Barrier(8)

            def work(number: int, key: str = key, barrier: Barrier = barrier) -> None:
                session = Store(key)
                assert session[USER_ID] == "9"
                barrier.wait(30)
                try:
                    if number == 0:
                        session.flush()
                    elif number % 2:
                        session.save()
                    else:
                        session["number"] = number
                        session.save()
                except UpdateError:
                    pass
                finally:
                    close_connections()

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, range(8)))
            assert run_sync(Store.storage.scan(None, 100)) == []
            assert run_sync(Store.storage.of_user("9")) == []
