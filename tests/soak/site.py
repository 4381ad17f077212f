"""The settings of a small site in processes of its own; what differs comes as JSON in the environment.

Its entry points are in `applications.py`, its pages in `views.py`.
"""

import json
import os

import pymysql

pymysql.version_info = (2, 2, 1, "final", 0)  # Django asks for mysqlclient's; gevent can only patch what is Python
pymysql.install_as_MySQLdb()

ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.soak.views"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_multisession",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
LOGGING = {  # tracebacks, in the server's log
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "ERROR"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

globals().update(json.loads(os.environ["TEST_SITE"]))
