from importlib import import_module

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from . import checks  # registers them


class MultisessionConfig(AppConfig):
    name = "django_multisession"
    verbose_name = _("Sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import hooks  # needs the apps' models

        hooks.connect()
        if f"{checks.BACKENDS}moving" == settings.SESSION_ENGINE:
            import_module(settings.SESSION_ENGINE)  # which registers its checks, whatever MULTISESSION_MOVE says
        post_migrate.connect(make_indexes, sender=self, dispatch_uid="django_multisession")


def make_indexes(**_kwargs: object) -> None:
    """What `migrate` does for an engine that has no table."""
    if checks.engine() == "mongodb":
        from .backends import mongodb

        mongodb.make_indexes()
