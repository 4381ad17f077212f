import json
import os
import signal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_multisession.backends import moving
from django_multisession.management.moving import UNDER_WAY

from .conftest import saved_on


def run(*options, **named):
    out, err = StringIO(), StringIO()
    call_command("sessions", "move", *options, stdout=out, stderr=err, **named)
    return out.getvalue()


def as_json(*options):
    return json.loads(run("--json", *options))


def test_the_whole_story(site):
    keys = [saved_on(site.old, n=number) for number in range(12)]
    assert as_json("--status") == {"left": 12}
    assert run("--status") == "12 live sessions are left on the old side.\n"
    nothing = {"expired": 0, "unreadable": 0, "too_large": 0, "unserializable": 0}
    assert as_json("--dry-run") == {"live": 12, **nothing}
    assert run("--dry-run") == ("The old side has 12 live, 0 expired, 0 unreadable, 0 too large, 0 unserializable.\n")
    assert as_json("--status") == {"left": 12}
    first = as_json("--batch-size=5", "--max-rows=5")
    assert {**first, "seconds": 0} == {
        "moved": 5, **nothing, "batches": 1, "seconds": 0, "more": True, "reason": "max_rows",
    }  # fmt: skip
    text = run("--no-progress", "--pause=1ms")
    assert text.startswith("7 moved, 0 expired, 0 unreadable, 0 too large, 0 unserializable in ")
    assert "(done)" in text
    assert as_json("--status") == {"left": 0}
    assert "name the new engine alone" in run("--status")
    assert as_json("--clean") == {"removed": 0}
    assert all(site.is_new(key) for key in keys)


def test_options_are_checked(site):
    for option, message in (
        ("--batch-size=0", "--batch-size is '0'"),
        ("--pause=x", "--pause is 'x'"),
        ("--max-seconds=30", "--max-seconds is '30'"),
    ):
        with pytest.raises(CommandError, match=message) as raised:
            run(option)
        assert raised.value.returncode == 1


def test_it_refuses_in_other_phases(site, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": "prepare"}
    assert as_json("--status") == {"left": 0}
    for options in ([], ["--clean"]):
        with pytest.raises(CommandError, match="phase is 'prepare': sessions are moved in phase 'move' only"):
            run(*options)


def test_it_refuses_where_nothing_moves(site, settings):
    settings.SESSION_ENGINE = "django_multisession.backends.redis"
    with pytest.raises(CommandError, match=r"sessions move with 'django_multisession\.backends\.moving'"):
        run()


def test_a_second_one_exits_with_75(site):
    saved_on(site.old, a=1)
    raised = []

    def meanwhile(progress):
        with pytest.raises(CommandError, match="Another move is running") as error:
            run("--json")
        raised.append(error.value.returncode)

    moving.move(progress=meanwhile)
    assert raised == [75]


def test_sigterm_ends_it_after_the_batch(site, monkeypatch):
    for number in range(6):
        saved_on(site.old, n=number)
    original = moving.bulk._move_all

    async def and_stop(*arguments):
        await original(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(moving.bulk, "_move_all", and_stop)
    stopped = as_json("--batch-size=2")
    assert (stopped["reason"], stopped["moved"], stopped["more"]) == ("stopped", 2, True)


def test_what_cannot_be_walked_says_what_happens(site, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": "django.contrib.sessions.backends.cache"}
    settings.SESSION_CACHE_ALIAS = "default"
    assert as_json("--status") == {"left": None}
    assert "move as people come" in run("--status")
    with pytest.raises(CommandError, match="move as people come"):
        run()


def test_lists_say_that_a_move_is_under_way(site, django_user_model):
    django_user_model.objects.filter(username="ann").delete()
    user = django_user_model.objects.create_user("ann")
    for command in (["list"], ["revoke-all", "--no-input"], ["list", "--repair"]):
        out, err = StringIO(), StringIO()
        call_command("sessions", *command, "--user=ann", stdout=out, stderr=err)
        assert err.getvalue().strip() == UNDER_WAY
    user.delete()
