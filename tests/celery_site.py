"""A site in one module, for the worker and beat processes that tests start: the settings, and the Celery app.

What differs from test to test comes as JSON in the environment.
"""

import json
import os

from celery import Celery

SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django_multisession"]
SESSION_ENGINE = "django_multisession.backends.db"
CELERY_TASK_TRACK_STARTED = True  # for the process id of a running task

globals().update(json.loads(os.environ["TEST_SITE"]))

app = Celery("tests")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
