from django.contrib import admin
from django.urls import path

from benchmarks.costs import site

VIEWS = "nothing", "read", "write", "anothing", "aread", "awrite"
urlpatterns = [path("admin/", admin.site.urls), *(path(name, getattr(site, name)) for name in VIEWS)]
