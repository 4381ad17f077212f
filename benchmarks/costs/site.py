"""The site of capacity.py: its engine and servers are named by the environment. gunicorn: `wsgi`, uvicorn: `asgi`."""

import os
from itertools import count
from typing import Any

import dj_database_url
import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse

ENGINES = {"Redis": "redis", "PostgreSQL": "db", "MongoDB": "mongodb"}

POOL: dict[str, Any] = {"OPTIONS": {"pool": True}}
KEPT: dict[str, Any] = POOL if os.environ.get("CAPACITY_POOL") else {"CONN_MAX_AGE": 600}

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": dj_database_url.parse(os.environ["CAPACITY_POSTGRES"]) | KEPT},
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages")),
            "django_multisession",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        MULTISESSION_MONGODB=os.environ.get("CAPACITY_MONGODB"),
        MULTISESSION_TIMEOUT=60,  # SecantusDB takes its time
        MULTISESSION_REDIS=os.environ.get("CAPACITY_REDIS"),
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="benchmarks.costs.urls",
        SECRET_KEY="of a benchmark",
        SESSION_ENGINE=f"django_multisession.backends.{ENGINES[os.environ['CAPACITY_ENGINE']]}",
        STATIC_URL="static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()

numbers = count(10**6)


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session["visits"]))


def write(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = next(numbers)
    return HttpResponse("ok")


async def anothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


async def aread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await request.session.aget("visits")))


async def awrite(request: HttpRequest) -> HttpResponse:
    await request.session.aset("visits", next(numbers))
    return HttpResponse("ok")


def __getattr__(name: str) -> Any:
    if name == "wsgi":
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()
    if name == "asgi":
        from django.core.asgi import get_asgi_application

        return get_asgi_application()
    raise AttributeError(name)
