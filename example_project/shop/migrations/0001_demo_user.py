from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import migrations


def create_demo_user(apps, _schema_editor):
    User = apps.get_model("auth", "User")
    password = make_password(settings.DEMO_PASSWORD)
    defaults = {"password": password, "is_staff": True, "is_superuser": True}  # who may look at the admin too
    User.objects.get_or_create(username=settings.DEMO_USERNAME, defaults=defaults)


class Migration(migrations.Migration):
    dependencies = [("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(create_demo_user, migrations.RunPython.noop)]
