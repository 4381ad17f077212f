"""Who is meant by what somebody has typed: a name by which users sign in, or a primary key."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import reduce
from operator import or_
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Q

from . import wording


class Ambiguous(LookupError):
    """The text is the name of one user and the primary key of another."""


def find(text: str) -> Any:
    """The user of that name or primary key. Raises `LookupError`, `Ambiguous` if that is two."""
    found = {user.pk: user for user in (by_name(text), by_pk(text)) if user}
    if len(found) > 1:
        raise Ambiguous(f"{text!r} is the name of one user and the primary key of another.")
    if not found:
        raise LookupError(f"There is no user {text!r}.")
    return next(iter(found.values()))


def by_name(text: str) -> Any:
    try:
        return get_user_model()._default_manager.get_by_natural_key(text)
    except ObjectDoesNotExist:
        return None


def by_pk(text: str) -> Any:
    try:
        return get_user_model()._default_manager.filter(pk=as_pk(text)).first()
    except LookupError:
        return None


def as_pk(text: str) -> Any:
    """A primary key from its text; of a composite one that is JSON, as `["1", "7"]`. Raises `LookupError`."""
    try:
        return get_user_model()._meta.pk.to_python(text)
    except (ValidationError, ValueError, TypeError) as error:  # the latter two: it is no JSON, or of another form
        raise LookupError(f"{text!r} is no primary key.") from error


def search(text: str, most: int, others: Any = None) -> list[Any]:
    """Up to `most` users, by name: of this primary key, with this in their name or e-mail address, or in `others`."""
    model = get_user_model()
    fields = {model.USERNAME_FIELD, _email_field(model)} - {None}
    named = model._default_manager.filter(reduce(or_, (Q(**{f"{field}__icontains": text}) for field in fields)))
    querysets = [named] if others is None else [named, others]
    found = {user.pk: user for each in querysets for user in each.order_by(model.USERNAME_FIELD)[:most]}
    user = by_pk(text)
    first = [] if user is None or user.pk in found else [user]
    by_name = sorted(found.values(), key=lambda each: str(each.get_username()))
    return [*first, *by_name][:most]


def _email_field(model: Any) -> str | None:
    """A site's user model may have none."""
    name = model.get_email_field_name() if hasattr(model, "get_email_field_name") else None
    return name if name in {field.name for field in model._meta.get_fields()} else None


def active(seen: Iterable[tuple[str, datetime]]) -> list[tuple[Any, datetime]]:
    """The users of these ids, with the times as a `DateTimeField` gives them; without those who were deleted."""
    times = {}
    for user_id, moment in seen:
        with suppress(LookupError):
            times[as_pk(user_id)] = moment
    users = get_user_model()._default_manager.in_bulk(list(times))
    return [(users[pk], wording.local(moment)) for pk, moment in times.items() if pk in users]


NOBODY = ""  # no session is stored with it, and any server takes it: other text could have a NUL, say


def user_id_of(user: Any) -> str:
    """The text by which sessions know a user. Raises `ValueError` for one that has no primary key."""
    pk = getattr(user, "pk", user)
    if pk is None or pk == "" or (isinstance(pk, tuple) and None in pk):
        raise ValueError(f"{user!r} has no primary key, so no sessions of its own.")
    key: Any = (user if hasattr(user, "_meta") else get_user_model())._meta.pk
    try:
        user_id = str(key.value_to_string(SimpleNamespace(**{key.attname: key.to_python(pk)})))
        user_id.encode()  # as every server has it
    except (ValidationError, ValueError, TypeError, OverflowError):
        return NOBODY
    return user_id
