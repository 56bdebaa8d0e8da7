"""gunicorn -c python:epsagon_fast.integrations.gunicorn django_app:app

The same under ASGI:

gunicorn -c python:epsagon_fast.integrations.gunicorn -k uvicorn_worker.UvicornWorker django_app:asgi
"""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

import epsagon_fast as epsagon

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for this example only")


def item(request: HttpRequest, number: int) -> JsonResponse:
    epsagon.label("item", number)
    with epsagon.event("look up", type="database", operation="SELECT") as event:
        event.metadata["table"] = "items"
    return JsonResponse({"number": number})


def broken(request: HttpRequest) -> JsonResponse:
    raise LookupError("no such shelf")


urlpatterns = [path("items/<int:number>", item), path("broken", broken)]
app = get_wsgi_application()
asgi = get_asgi_application()
