"""Users and their browsers, for the tests that go through Django's request and response."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client

COOKIE = settings.SESSION_COOKIE_NAME
OURS = "django_multisession.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"
BACKEND = "django.contrib.auth.backends.ModelBackend"


class Browser:
    """A test client of either kind."""

    def __init__(self, face: Any) -> None:
        self.face = face
        self.client: Any = Client() if face.name == "sync" else AsyncClient()

    def get(self, path: str, **headers: str) -> Any:
        response = self.client.get(path, headers=headers or None)
        return response if self.face.name == "sync" else self.face.runner.run(response)

    @property
    def key(self) -> str:
        return str(self.client.cookies[COOKIE].value)

    @key.setter
    def key(self, key: str) -> None:
        self.client.cookies[COOKIE] = key


def new_user(name: str, password: str = "secret") -> Any:
    user, _ = get_user_model().objects.get_or_create(username=name)
    user.set_password(password)
    user.is_active = True
    user.save()
    return user
