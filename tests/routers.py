"""Sends the session table to the database under test."""

from typing import ClassVar


class SessionRouter:
    alias: ClassVar[str] = "default"

    def db_for_read(self, model: type, **hints: object) -> str | None:
        return None

    def db_for_write(self, model: type, **hints: object) -> str | None:
        return self.alias if model._meta.app_label == "django_multisession" else None
