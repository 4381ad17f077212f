"""What the changes of a user do to the user's sessions; each can be left out of `MULTISESSION_REVOKE_ON`.

    password     ends the sessions whose log-in Django no longer accepts: their auth hash is not the user's new one.
                 That of the request at work stays: `update_session_auth_hash()` comes only after the password was
                 saved. So this needs the package's middleware, which knows that request
    deactivated  ends all
    deleted      ends all

They happen after the commit of the transaction that changes the user, so nobody signs in again before it. That a
session could not be ended must not go unnoticed. Without a transaction `save()` raises, `EngineUnavailable` say. After
a commit it is a line at level ERROR in the log `django_multisession`, as an exception would keep Django from calling
all hooks that come later, the site's own too. `delete()` makes a transaction of its own. `QuerySet.update()`,
`bulk_update()` and SQL send no signals, so they are not seen.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.models.signals import post_delete, post_save
from django.utils.module_loading import import_string

from . import checks, codecs, devices, middleware, user_sessions
from .conf import conf
from .exceptions import EngineUnavailable
from .lifecycle import DEACTIVATED, DELETED, PASSWORD
from .records import Record
from .twins import SYNC, run_sync

UID = "django_multisession"

logger = logging.getLogger("django_multisession")


def connect() -> None:
    """Of signals of the user model's classes only: a receiver of every class would slow down the deletion of others."""
    user_logged_in.connect(devices.note_login, dispatch_uid=UID)
    with suppress(ImproperlyConfigured):  # a site without django.contrib.auth
        user_model = get_user_model()
        for model in apps.get_models():
            if issubclass(model, user_model):
                post_save.connect(saved, sender=model, dispatch_uid=UID)
                post_delete.connect(deleted, sender=model, dispatch_uid=UID)


def saved(
    instance: Any, using: str, created: bool, raw: bool, update_fields: frozenset[str] | None, **_kwargs: object
) -> None:
    if created or raw:
        return

    def may_have_changed(field: str) -> bool:
        return update_fields is None or field in update_fields

    if not getattr(instance, "is_active", True) and may_have_changed("is_active") and DEACTIVATED in conf.REVOKE_ON:
        _end(instance, using, DEACTIVATED)
    elif isinstance(instance, AbstractBaseUser) and may_have_changed("password") and knows_requests():
        _end(instance, using, PASSWORD, _keeping(instance))


def deleted(instance: Any, using: str, **_kwargs: object) -> None:
    _end(instance, using, DELETED)


def _end(user: Any, using: str, reason: str, keeps: Callable[[Record], bool] = lambda record: False) -> None:
    if reason not in conf.REVOKE_ON or not checks.engine():  # or the sessions are of another package's engine
        return
    user_id = user_sessions.user_id_of(user)  # now: a deleted user is about to lose it

    def end() -> None:
        run_sync(user_sessions.end_all(SYNC, user_id, reason, keeps))

    def end_or_tell() -> None:
        try:
            end()
        except Exception as error:
            traceback = not isinstance(error, EngineUnavailable)  # what that has to say is in its text
            logger.error("Sessions of user %s were not ended (%s): %s", user_id, reason, error, exc_info=traceback)

    if connections[using].in_atomic_block:
        transaction.on_commit(end_or_tell, using=using)
    else:  # also where the site manages transactions by hand: Django knows of no commit then
        end()


def _keeping(user: Any) -> Callable[[Record], bool]:
    hashes = {user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()}

    def keeps(record: Record) -> bool:
        own_id = user_sessions.own_id_of(middleware.current.get())
        return record.id == own_id or codecs.data_of(record).get(HASH_SESSION_KEY) in hashes

    return keeps


def knows_requests() -> bool:
    """Whether the package's middleware is there, which says whose request it is that changes a password."""
    classes = (import_string(path) for path in settings.MIDDLEWARE)
    return any(isinstance(each, type) and issubclass(each, middleware.SessionMiddleware) for each in classes)
