from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class MultisessionConfig(AppConfig):
    name = "django_multisession"
    verbose_name = _("Sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  registers them

        if settings.SESSION_ENGINE == "django_multisession.backends.mongodb":
            from .backends.mongodb import ensure_indexes

            post_migrate.connect(ensure_indexes, sender=self, dispatch_uid="django_multisession.mongodb")
