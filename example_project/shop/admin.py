from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from django_multisession.admin import EndSessionsMixin

admin.site.unregister(User)


@admin.register(User)
class PeopleAdmin(EndSessionsMixin, UserAdmin):
    """With a link to a user's sessions, and "Sign out all sessions" for many users."""
