"""Settings of the example site: the least that Django needs, and a switch for the session engine.

SESSION_BACKEND  redis (the default), mongodb or db
REDIS_CLUSTER_URL  where a cluster of Redis is, if it is to be one
REDIS_URL, MONGODB_URL, DATABASE_URL  where the servers are; the users are in the database, whichever the engine
CELERY_BROKER_URL  where Celery's broker is
DEMO_MOVE  where a move from Django's `db` engine is: old, prepare, move, new
DEMO_PURGE_SECONDS  how often beat has the expired sessions purged: each minute
"""

import os
from pathlib import Path

import dj_database_url
from django.core.management.utils import get_random_secret_key

from django_multisession.schedule import purge_schedule

BASE_DIR = Path(__file__).resolve().parent.parent

# Sessions: the engine is one setting, and each engine has one that says where its server is.

SESSION_ENGINE = f"django_multisession.backends.{os.environ.get('SESSION_BACKEND', 'redis')}"
SESSION_CACHE_ALIAS = "sessions"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "sessions": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
    },
}
MULTISESSION_REDIS = os.environ.get("REDIS_CLUSTER_URL")  # None: it is the alias's
MULTISESSION_MONGODB = os.environ.get("MONGODB_URL", "mongodb://127.0.0.1:27017/multisession")

# A move from Django's own engine, in four deploys: see docs/moving.md.

MOVE = os.environ.get("DEMO_MOVE", "new")
DJANGOS_ENGINE = "django.contrib.sessions.backends.db"
if MOVE == "old":
    SESSION_ENGINE = DJANGOS_ENGINE
elif MOVE != "new":
    MULTISESSION_MOVE = {"from": DJANGOS_ENGINE, "to": SESSION_ENGINE, "phase": MOVE}
    SESSION_ENGINE = "django_multisession.backends.moving"

# Users see where they are signed in, five times at most, and what browser that was.

MULTISESSION_TRACK_CLIENT = True
MULTISESSION_MAX_PER_USER = 5

# Database

DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:///{BASE_DIR}/var/db.sqlite3"
DATABASES = {"default": dj_database_url.parse(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    Path(DATABASES["default"]["NAME"]).parent.mkdir(exist_ok=True)
    # Several servers share the file: readers go on while one writes, and a second writer waits for its turn.
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode = WAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }

# Celery: expired SQL sessions are purged by the worker of the queue "low". A real site does so once a day, with the
# defaults of `jitter` and `grace`.

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_TASK_IGNORE_RESULT = True
PURGE_SECONDS = float(os.environ.get("DEMO_PURGE_SECONDS", "60"))
CELERY_BEAT_SCHEDULE = {"purge-sessions": purge_schedule(PURGE_SECONDS, queue="low", jitter=0, grace=0)}

# The site

DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
SECRET_KEY = os.environ.get("SECRET_KEY") or get_random_secret_key()  # servers that share sessions share the key
ROOT_URLCONF = "demo_site.urls"
INSTALLED_APPS = [
    "shop",  # first: its templates go before the package's
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",  # for a move
    "django.contrib.staticfiles",
    "django_multisession",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django_multisession.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "shop.context.server",
            ]
        },
    }
]
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"shop.audit": {"handlers": ["stderr"], "level": "INFO"}},
}
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"

# The demo: its user, made by a migration, and the ports of its web servers, to link to.

DEMO_USERNAME = "demo"
DEMO_PASSWORD = "open-sesame"
DEMO_PORTS = os.environ.get("DEMO_PORTS", "").split()
