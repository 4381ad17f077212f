from django.db import migrations, models

import django_multisession.models


class Migration(migrations.Migration):
    dependencies = [
        ("django_multisession", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="PurgeLease",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("holder", models.CharField(max_length=32)),
                ("expires_at", django_multisession.models.EpochField()),
            ],
        ),
        migrations.CreateModel(
            name="PurgeRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("table", models.CharField(max_length=255, verbose_name="table")),
                ("started_at", django_multisession.models.EpochField(verbose_name="started at")),
                ("ended_at", django_multisession.models.EpochField(verbose_name="ended at")),
                ("rows", models.BigIntegerField(verbose_name="rows")),
                ("batches", models.BigIntegerField(verbose_name="batches")),
                ("more", models.BooleanField(verbose_name="more are waiting")),
                ("reason", models.CharField(max_length=32, verbose_name="reason")),
                ("host", models.CharField(max_length=255, verbose_name="host")),
            ],
            options={
                "verbose_name": "purge",
                "verbose_name_plural": "purges",
            },
        ),
    ]
