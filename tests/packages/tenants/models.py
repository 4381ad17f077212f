"""The tenants of a site with django-tenants: each has a schema of PostgreSQL, with tables of its own."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    name = models.CharField(max_length=20)


class Domain(DomainMixin):
    pass
