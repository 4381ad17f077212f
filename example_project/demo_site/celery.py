"""Celery: `celery -A demo_site.celery worker --queues low` and `celery -A demo_site.celery beat`.

A site that sends tasks from its views imports `app` in the package's `__init__.py`, too.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_site.settings")

app = Celery("demo_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
