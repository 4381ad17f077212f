"""What django-stubs needs to type the models; tests/settings.py would start servers."""

SECRET_KEY = "for the type checker"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_multisession"]
