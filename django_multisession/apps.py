from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import pgettext_lazy

from . import engine


class MultisessionConfig(AppConfig):
    name = "django_multisession"
    verbose_name = pgettext_lazy("django_multisession", "Sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import (
            checks,  # noqa: F401  registers them
            metrics,
        )
        from .user_sessions import hooks  # needs the apps' models

        hooks.connect()
        engine.kind()  # imports it, and so its checks are there when `manage.py check` asks for them
        metrics.start_if_measured()
        post_migrate.connect(make_indexes, sender=self, dispatch_uid="django_multisession")


def make_indexes(**_kwargs: object) -> None:
    """What `migrate` does for an engine that has no table."""
    if engine.kind() == "mongodb":
        from .backends import mongodb

        mongodb.make_indexes()
