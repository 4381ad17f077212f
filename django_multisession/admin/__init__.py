"""The admin: the sessions, on any engine, and the runs of the purge, to be looked at."""

from django.contrib import admin

from ..models import PurgeRun, Session
from .mixin import EndSessionsMixin
from .purges import PurgeRunAdmin
from .sessions import SessionAdmin

__all__ = ["EndSessionsMixin", "PurgeRunAdmin", "SessionAdmin"]

admin.site.register(Session, SessionAdmin)
admin.site.register(PurgeRun, PurgeRunAdmin)
