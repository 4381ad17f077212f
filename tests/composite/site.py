"""A site of its own in this process: users with composite primary keys, and their sessions, in SQLite in memory."""

import sys
from typing import Any

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "tests.composite", "django_multisession"],
    AUTH_USER_MODEL="composite.User",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="x",
    SESSION_ENGINE="django_multisession.backends.db",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import SESSION_KEY, get_user_model  # noqa: E402
from django.core.management import call_command, execute_from_command_line  # noqa: E402

from django_multisession.backends.db import SessionStore  # noqa: E402

call_command("migrate", run_syncdb=True, verbosity=0)


def user(name: str) -> Any:
    users = get_user_model()._default_manager
    return users.create(name=name, tenant="red", number=users.count() + 1)


def signed_in(user: Any) -> None:
    session = SessionStore()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)  # as Django's login() does
    session.save()


def manage(*words: str) -> None:
    """Ends the process where the command does."""
    sys.argv = ["manage.py", *words]
    execute_from_command_line(sys.argv)
