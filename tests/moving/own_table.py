"""Django's `db` engine with a table of the site's own, as Django's documentation of sessions shows it."""

from django.contrib.sessions.backends.db import SessionStore as DBStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class OwnSession(AbstractBaseSession):
    account_id = models.IntegerField(null=True, db_index=True)

    class Meta:
        app_label = "own_table"

    @classmethod
    def get_session_store_class(cls):
        return SessionStore


class SessionStore(DBStore):
    @classmethod
    def get_model_class(cls):
        return OwnSession

    def create_model_instance(self, data):
        instance = super().create_model_instance(data)
        instance.account_id = data.get("_auth_user_id")
        return instance
