"""A Flask application. GET /call/NAME makes one call; it sends tasks with celery and asks Django's ORM, too.

DJANGO_SETTINGS_MODULE is shop_settings.
"""

import calls
import django
import tasks
from flask import Flask

django.setup()

from django.db import models  # noqa: E402 - it needs the settings


class Thing(models.Model):
    """Rows of a table that every PostgreSQL has."""

    oid = models.IntegerField(primary_key=True)
    datname = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "pg_database"
        managed = False


def django_orm() -> None:
    Thing.objects.filter(datname="postgres").exists()


def celery() -> None:
    tasks.pack.delay("a parcel")


CALLS = {**calls.SYNC, "django": django_orm, "celery": celery}
app = Flask(__name__)


@app.get("/call/<name>")
def call(name: str) -> str:
    CALLS[name]()
    return name
