"""The whole contract, and what is the memory's own: threads, forks, and that it does not grow for ever."""

import os
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest

from django_multisession.backends import memory
from django_multisession.backends.memory.storage import FEWEST
from django_multisession.records import utcnow
from django_multisession.testing.contract import *  # noqa: F403
from django_multisession.testing.stored import a_record
from django_multisession.twins import run_sync

THREADS, EACH = 8, 200


@pytest.fixture
def engine_name() -> str:
    return "memory"


@pytest.fixture
def impatient() -> Any:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(function: Any) -> list[Any]:
    """What it returns for each number, called in as many threads at once."""
    answers, start = [], threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        answers.append(function(number))

    threads = [threading.Thread(target=run, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_threads_that_save_one_session_lose_nothing(Store, impatient):
    session = Store()
    session.save()

    def save(number: int) -> None:
        for each in range(10):
            own = Store(session.session_key)
            own[f"{number}-{each}"] = True
            own.save()

    in_threads(save)
    assert len(Store(session.session_key).keys()) == THREADS * 10


def test_of_threads_that_insert_the_same_id_one_wins(Store, impatient):
    def insert(number: int) -> list[bool]:
        made = (a_record(f"{each:064x}", payload=b"%d" % number) for each in range(EACH))
        return [run_sync(Store.storage.insert(record)) for record in made]

    assert [sum(each) for each in zip(*in_threads(insert), strict=True)] == [1] * EACH


def test_lists_and_scans_go_on_while_threads_write(Store, impatient):
    def write_or_list(number: int) -> int:
        for each in range(EACH):
            record = a_record(f"{number}{each:063x}", user_id="1")
            run_sync(Store.storage.insert(record))
            run_sync(Store.storage.of_user("1"))
            run_sync(Store.storage.scan(None, 10))
            if each % 2:
                run_sync(Store.storage.remove([record.id]))
        return number

    assert len(in_threads(write_or_list)) == THREADS  # no thread has failed on a dictionary that changed
    assert len(run_sync(Store.storage.of_user("1"))) == THREADS * EACH / 2


def test_what_has_expired_does_not_stay_for_ever(Store):
    long_ago = utcnow() - timedelta(days=1)
    for each in range(10 * FEWEST):
        run_sync(Store.storage.insert(a_record(f"{each:064x}", expires_at=long_ago)))
    assert len(Store.storage.records) <= FEWEST


def test_no_live_session_goes_with_them(Store):
    for each in range(3 * FEWEST):
        run_sync(Store.storage.insert(a_record(f"{each:064x}")))
    assert len(Store.storage.records) == 3 * FEWEST


def test_both_faces_see_the_same(Store):
    assert Store.storage is Store.astorage


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_begins_with_nothing_even_where_a_thread_was_saving(Store):
    session = Store()
    session.save()
    with Store.storage.lock:
        if not (child := os.fork()):
            fresh = memory.SessionStore()
            fresh.save()  # would wait for ever for a lock that no thread of the child holds
            os._exit(len(Store.storage.records))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert session.exists(session.session_key)
