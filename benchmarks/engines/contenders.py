"""Who takes part in run.py: the bare drivers, the engines of this project, and their peers from PyPI."""

from dataclasses import dataclass, field, replace
from typing import Any

CACHE = "django.contrib.sessions.backends.cache"
CACHED_DB = "django.contrib.sessions.backends.cached_db"
DB = "django.contrib.sessions.backends.db"
OURS = "django_multisession.backends"
MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
DJANGO_REDIS = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "{redis}"}
DJANGOS_REDIS = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{redis}"}
PREPARED = {"server_side_binding": True, "prepare_threshold": 0}  # Django's own options for PostgreSQL
SPEED = ("orjson", "backports.zstd", "compression")  # what the extra [speed] installs; the last: Python 3.14's own


@dataclass(frozen=True)
class Contender:
    """One of those that are measured in turn, each in a process of its own."""

    name: str
    server: str  # in whose table it is
    engine: str | None = None  # module of the SessionStore; None: the bare driver, or a request without a session
    packages: tuple[str, ...] = ()  # to install from PyPI for this one only, beside what is installed
    apps: tuple[str, ...] = ()
    middleware: str = MIDDLEWARE
    settings: dict[str, Any] = field(default_factory=dict)  # "{redis}" and so on become the servers' addresses
    options: dict[str, Any] = field(default_factory=dict)  # of the SQL database, besides those of all
    blocked: tuple[str, ...] = ()  # modules that it must not find
    model: str | None = None  # of a table: "app.Model"
    requests_only: bool = False
    also: str | None = None  # another server that it needs
    shim: str | None = None  # function of shims.py that makes it run
    note: str = ""


def _redis(engine: str, name: str, **options: Any) -> Contender:
    return Contender(name, "redis", engine, **options)


def _ours(server: str, module: str, **options: Any) -> list[Contender]:
    """Our engine as it is, without the libraries of [speed], and with our middleware."""
    shared: dict[str, Any] = {"engine": f"{OURS}.{module}", "apps": ("django_multisession",), **options}
    middleware = "django_multisession.middleware.SessionMiddleware"
    return [
        Contender("multisession", server, **shared),
        Contender("multisession without speed", server, blocked=SPEED, **shared),
        Contender("multisession, its middleware", server, middleware=middleware, requests_only=True, **shared),
    ]


def _cached(cache: dict[str, str]) -> dict[str, Any]:
    return {"CACHES": {"default": cache}}


def _sql(server: str) -> list[Contender]:
    """The engines that work on any database of Django's."""
    qsessions = {"packages": ("django-qsessions",), "apps": ("qsessions",), "model": "qsessions.Session"}
    return [
        *_ours(server, "db", model="django_multisession.Session"),
        Contender("Django db", server, DB, apps=("django.contrib.sessions",), model="sessions.Session"),
        Contender(
            "django-qsessions db",
            server,
            "qsessions.backends.db",
            middleware="qsessions.middleware.SessionMiddleware",
            **qsessions,
        ),
        Contender(
            "django-user-sessions",
            server,
            "user_sessions.backends.db",
            packages=("django-user-sessions", "setuptools<81"),
            note="with an older setuptools, whose pkg_resources it imports",
            apps=("user_sessions",),
            middleware="user_sessions.middleware.SessionMiddleware",
            model="user_sessions.Session",
            settings={"DEFAULT_AUTO_FIELD": "django.db.models.AutoField"},
        ),
    ]


_MONGO_HOST = {"MONGO_HOST": "127.0.0.1", "MONGO_PORT": "{mongodb_port}", "MONGO_DB_NAME": "{mongodb_name}"}

CONTENDERS = [
    Contender("redis-py with hiredis", "redis"),
    *_ours("redis", "redis", settings={"MULTISESSION_REDIS": "{redis}"}),
    _redis(CACHE, "Django cache on django-redis", settings=_cached(DJANGO_REDIS)),
    _redis(CACHE, "Django cache on Django's Redis", settings=_cached(DJANGOS_REDIS)),
    _redis(
        "redis_sessions.session",
        "django-redis-sessions",
        packages=("django-redis-sessions",),
        settings={"SESSION_REDIS": {"url": "{redis}", "socket_timeout": 5}},
    ),
    Contender("psycopg", "postgres"),
    *_sql("postgres"),
    *(
        replace(each, name=f"{each.name}, prepared", options=PREPARED)
        for each in _sql("postgres")
        if each.name in ("multisession", "Django db")
    ),
    Contender(
        "multisession cached_db",
        "postgres",
        f"{OURS}.cached_db",
        apps=("django_multisession",),
        model="django_multisession.Session",
        settings={"MULTISESSION_REDIS": "{redis}"},
        also="redis",
    ),
    Contender(
        "multisession redis",
        "postgres",
        f"{OURS}.redis",
        apps=("django_multisession",),
        settings={"MULTISESSION_REDIS": "{redis}"},
        also="redis",
        note="in this table for the comparison with cached_db",
    ),
    Contender(
        "Django cached_db on django-redis",
        "postgres",
        CACHED_DB,
        apps=("django.contrib.sessions",),
        model="sessions.Session",
        settings=_cached(DJANGO_REDIS),
        also="redis",
    ),
    Contender(
        "django-qsessions cached_db on django-redis",
        "postgres",
        "qsessions.backends.cached_db",
        packages=("django-qsessions",),
        apps=("qsessions",),
        middleware="qsessions.middleware.SessionMiddleware",
        model="qsessions.Session",
        settings=_cached(DJANGO_REDIS),
        also="redis",
    ),
    Contender("sqlite3", "sqlite"),
    *_sql("sqlite"),
    Contender(
        "Django file", "sqlite", "django.contrib.sessions.backends.file", settings={"SESSION_FILE_PATH": "{files}"}
    ),
    Contender("pymongo", "mongodb"),
    *_ours("mongodb", "mongodb", settings={"MULTISESSION_MONGODB": "{mongodb}"}),
    Contender(
        "Django db on django-mongodb-backend",
        "mongodb",
        DB,
        packages=("django-mongodb-backend",),
        apps=("django.contrib.sessions",),
        settings={
            "DATABASES": {
                "default": {"ENGINE": "django_mongodb_backend", "HOST": "{mongodb}", "NAME": "{mongodb_name}"}
            },
            "DEFAULT_AUTO_FIELD": "django_mongodb_backend.fields.ObjectIdAutoField",
        },
    ),
    Contender(
        "django-mongoengine",
        "mongodb",
        "django_mongoengine.sessions",
        packages=("django-mongoengine", "mongoengine", "--no-deps"),
        shim="mongoengine",
        note="its release asks for Django 4.2; the engine runs on this one as it is",
    ),
    Contender(
        "django-mongo-sessions",
        "mongodb",
        "mongo_sessions.session",
        packages=("django-mongo-sessions",),
        settings=_MONGO_HOST,
        shim="mongo_sessions",
        note="with names that Django 4 and pymongo 4 have dropped put back",
    ),
    Contender(
        "django-mdbsessions",
        "mongodb",
        "mdbsession.session",
        packages=("django-mdbsessions",),
        shim="mdbsession",
        note="with the index on session_key that it does not make itself; stores plain documents, unsigned",
    ),
    *(
        Contender("Django without sessions", each, requests_only=True)
        for each in ("redis", "postgres", "sqlite", "mongodb")
    ),
]

BARE = {each.server: each.name for each in CONTENDERS if each.engine is None and not each.requests_only}
