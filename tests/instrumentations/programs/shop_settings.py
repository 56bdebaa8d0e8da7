"""Django's settings for its ORM in the Flask application."""

import os
from urllib.parse import urlsplit

_database = urlsplit(os.environ["DATABASE"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.path.strip("/"),
        "USER": _database.username,
        "HOST": _database.hostname,
        "PORT": _database.port,
    }
}
