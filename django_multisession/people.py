"""Who is meant by what somebody has typed: a name by which users sign in, or a primary key."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError


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


def search(text: str, most: int) -> list[Any]:
    """Up to `most` users whose name contains the text, or whose primary key it is, by name."""
    model = get_user_model()
    named = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__icontains": text})
    found = list(named.order_by(model.USERNAME_FIELD)[:most])
    user = by_pk(text)
    return found if user is None or user in found else [user, *found][:most]
