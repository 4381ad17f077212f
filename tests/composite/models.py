"""A user whose primary key is composite, as of a site with many tenants."""

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class User(AbstractBaseUser):
    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.TextField()
    number = models.IntegerField()
    name = models.TextField(unique=True)

    USERNAME_FIELD = "name"
    objects: BaseUserManager["User"] = BaseUserManager()
