"""The checks of the MongoDB engine; their list is in `checks/__init__.py`."""

from contextlib import suppress

from ...checks import Problems, check, import_problem, is_callable, is_whole
from ...conf import conf

MONGODB_DOCUMENT = 16 * 1024 * 1024 - 4096  # bytes; the fields beside the payload need less than these 4 KiB


@check("E011", "mongodb")
def mongodb_setting_missing() -> Problems:
    if not conf.MONGODB:
        yield "MULTISESSION_MONGODB is not set.", "Set it to a URI such as 'mongodb://localhost/mysite'."


@check("E012", "mongodb")
def mongodb_setting_unusable() -> Problems:
    if conf.MONGODB and not (_is_mongodb_uri(conf.MONGODB) or is_callable(conf.MONGODB)):
        message = "MULTISESSION_MONGODB is neither a MongoDB URI nor the dotted path of a callable"
        yield (
            f"{message}{import_problem(conf.MONGODB)}.",
            "Write it as 'mongodb://user:password@host/database', quoted by urllib.parse.quote_plus().",
        )


@check("E013", "mongodb")
def mongodb_uri_without_database() -> Problems:
    if _is_mongodb_uri(conf.MONGODB) and not database_and_query(str(conf.MONGODB))[0]:
        message = "The URI of MULTISESSION_MONGODB names no database."
        yield message, "Add a slash and a name after the hosts, as in 'mongodb://localhost/mysite'."


@check("E014", "mongodb")
def max_bytes_over_document() -> Problems:
    if is_whole(conf.MAX_BYTES, MONGODB_DOCUMENT + 1):
        message = "MULTISESSION_MAX_BYTES is more than a MongoDB document can hold, 16 MiB."
        yield message, f"Set it to {MONGODB_DOCUMENT} at most; large sessions slow down every request."


def database_and_query(uri: str) -> tuple[str, str]:
    """As PyMongo takes a URI apart: `urlsplit()` stumbles over a "#" or "[" in a password."""
    address, _, query = uri.partition("?")
    return address.partition("://")[2].partition("/")[2], query


def _is_mongodb_uri(value: object) -> bool:
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    with suppress(PyMongoError, ValueError):
        # Parsing an SRV address would ask the DNS.
        return isinstance(value, str) and (value.startswith("mongodb+srv://") or bool(parse_uri(value, warn=True)))
    return False
