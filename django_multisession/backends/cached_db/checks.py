"""The checks of `cached_db`. Those of the settings of its Redis and of its database are theirs; their list is in
`checks/__init__.py`.
"""

from collections.abc import Sequence

from django.core import checks

from ... import engine
from ...checks import messages


def ask_redis() -> list[checks.CheckMessage]:
    from . import connections

    try:
        connections.sync().ping()
    except Exception as error:  # whatever it is: a server that is down must not keep `migrate` from running
        hint = "Sessions are read from the database meanwhile. Run the check again where the server can be reached."
        return messages("W005", [(f"Redis could not be checked: {error}", hint)])
    return []


@checks.register(checks.Tags.database)
def redis_server(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    # Django 5.2 calls it without --database as well.
    return ask_redis() if databases and engine.kind() == "cached_db" else []


@checks.register(deploy=True)
def redis_server_deployed(**_kwargs: object) -> list[checks.CheckMessage]:
    return ask_redis() if engine.kind() == "cached_db" else []
