"""A site that shows the package's own templates: SQL sessions in memory, and the admin. Importing it sets Django up."""

import sys
from pathlib import Path

import django
from django.conf import settings
from django.urls import include, path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

settings.configure(
    SECRET_KEY="for-pictures-only",  # noqa: S106
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="django_multisession.backends.db",
    MULTISESSION_TRACK_CLIENT=True,
    USE_TZ=True,
    STATIC_URL="static/",
    LOGIN_URL="/admin/login/",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django_multisession",
    ],
    MIDDLEWARE=[
        "django_multisession.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
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
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.views import PasswordChangeView  # noqa: E402

urlpatterns = [
    path("sessions/", include("django_multisession.urls")),
    path("admin/", admin.site.urls),
    path("password/", PasswordChangeView.as_view(), name="password_change"),
]
