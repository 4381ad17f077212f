"""The check of the memory engine; the list is in `checks/__init__.py`."""

from django.core import checks

from ...checks import Problems, check


@check("W020", "memory", tags=[checks.Tags.security], deploy=True)
def sessions_in_memory() -> Problems:
    # Whether DEBUG is on says nothing here: Django's test runner turns it off.
    message = "The sessions are in the memory of each process: no other process knows them, and a restart loses them."
    yield message, "Set SESSION_ENGINE to django_multisession.backends.redis, .mongodb or .db."
