import tempfile

import dj_database_url

from .servers import url_of

try:
    import MySQLdb  # noqa: F401  mysqlclient, where the machine can build it
except ImportError:
    import pymysql

    pymysql.version_info = (2, 2, 1, "final", 0)  # Django asks for mysqlclient's
    pymysql.install_as_MySQLdb()

MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}  # from Django 6.1 on
SECRET_KEY = "not a secret: the tests' own"
USE_TZ = True
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django_multisession",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
SILENCED_SYSTEM_CHECKS = ["admin.E409"]  # the messages' middleware is synchronous, and would be so in all tests
CONTEXT_PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": CONTEXT_PROCESSORS},
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

REDIS_URL = url_of("redis")
MULTISESSION_MONGODB = url_of("mongodb")
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "sessions": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL},
}
SESSION_CACHE_ALIAS = "sessions"
SESSION_ENGINE = "django_multisession.backends.memory"

SQLITE_FILE = tempfile.NamedTemporaryFile(suffix=".sqlite3")  # noqa: SIM115  lives as long as the process
SQLITE_OPTIONS = "timeout=20&transaction_mode=IMMEDIATE&init_command=PRAGMA journal_mode=WAL"
DATABASES = {"default": dj_database_url.parse(f"sqlite:///{SQLITE_FILE.name}?{SQLITE_OPTIONS}")}
for alias in ("postgres", "mysql"):
    if url := url_of(alias):
        DATABASES[alias] = dj_database_url.parse(url)
DATABASE_ROUTERS = ["tests.routers.SessionRouter"]
