"""Records the traces of traces.json.gz: `python benches/recording.py`, where django is installed as well.

Three programs as people write them, each with one thing in it that is large. What is kept is what their workers wrote,
event by event, before any limit.
"""

import base64
import gzip
import json
import pathlib
import random
import string
from collections.abc import Callable
from io import BytesIO
from typing import Any

import orjson

import epsagon_fast as epsagon
from epsagon_fast.testing import capture_traces

TRACES = pathlib.Path(__file__).with_name("traces.json.gz")
chance = random.Random(7)


def words(count: int) -> str:
    return " ".join("".join(chance.choices(string.ascii_lowercase, k=chance.randrange(2, 11))) for _ in range(count))


def row(number: int) -> dict[str, Any]:
    return {"id": number, "sku": f"A-{number:06}", "name": words(3).title(), "cents": chance.randrange(99, 99_999)}


def django_request() -> None:
    """A request that reads a customer and forty orders one by one, and writes its import with one statement."""
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.http import JsonResponse
    from django.urls import path

    def traced(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        with epsagon.event("shop.sqlite3", type="sql", operation=sql.split(" ", 1)[0]) as event:
            event.metadata.update({"sql.query": sql, "sql.params": params, "db.system": "sqlite"})
            result = execute(sql, params, many, context)
            event.metadata["sql.rowcount"] = context["cursor"].rowcount
            return result

    def importing(request: Any) -> JsonResponse:
        rows = json.loads(request.body)
        with connection.execute_wrapper(traced), connection.cursor() as cursor:
            cursor.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, sku TEXT, name TEXT, cents INTEGER)")
            for number in range(40):
                cursor.execute("SELECT id, sku, name, cents FROM products WHERE id = %s", [number])
            values = [value for row in rows for value in row.values()]
            cursor.execute(f"INSERT INTO products VALUES {', '.join(['(%s, %s, %s, %s)'] * len(rows))}", values)
            cursor.execute(f"SELECT SUM(cents) FROM products WHERE id IN ({', '.join(str(row['id']) for row in rows)})")
            return JsonResponse({"rows": len(rows), "cents": cursor.fetchone()[0]})

    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(ROOT_URLCONF=(path("import", importing),), DATABASES=databases, ALLOWED_HOSTS=["*"])
    django.setup()
    from epsagon_fast.integrations.wsgi import TracingMiddleware

    body = orjson.dumps([row(number) for number in range(1800)])
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/import", "SERVER_NAME": "shop.example", "SERVER_PORT": "443"}
    environ |= {"wsgi.url_scheme": "https", "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json"}
    answer = TracingMiddleware(get_wsgi_application())(environ | {"wsgi.input": BytesIO(body)}, lambda *_: None)
    b"".join(answer)


def celery_task() -> None:
    """A task that got all its rows as an argument, and sends them on in thirty parts."""
    from celery import Celery

    from epsagon_fast.integrations.celery import instrument

    app = Celery("shop", broker="memory://")
    instrument(app)

    @app.task(name="shop.reprice")
    def reprice(rows: list[dict[str, Any]], rate: float) -> int:
        for start in range(0, len(rows), 90):
            with epsagon.event("prices.example", type="http", operation="POST") as event:
                event.metadata.update({"url": f"https://prices.example/v2/reprice?rate={rate}", "status": 200})
                event.metadata["request_body"] = json.dumps(rows[start : start + 90])
        return len(rows)

    reprice.apply(args=[[row(number) for number in range(1500)], 1.07])


def api_gateway_event() -> None:
    """A function behind an API gateway, called with an upload of 100 KB, base64 as the gateway sends it."""
    headers = {"Host": "abc123.execute-api.eu-west-1.amazonaws.com", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    headers |= {"Cookie": words(60), "X-Forwarded-For": "203.0.113.7", "Content-Type": "image/png"}

    @epsagon.trace("upload")
    def handler(event: dict[str, Any], context: dict[str, str]) -> dict[str, Any]:
        with epsagon.event("upload", type="api_gateway", operation="POST") as trigger:
            trigger.metadata.update({"aws.event": event, "aws.request_id": context["aws_request_id"]})
        for number in range(12):
            with epsagon.event("thumbnails", type="dynamodb", operation="PutItem") as item:
                item.metadata.update({"region": "eu-west-1", "Item": row(number) | {"text": words(30)}})
        return {"statusCode": 201, "headers": {"Location": "/uploads/17"}, "body": json.dumps(row(17))}

    upload = base64.b64encode(chance.randbytes(75_000)).decode()
    request = {"resource": "/uploads", "path": "/uploads", "httpMethod": "POST", "headers": headers}
    request |= {"multiValueHeaders": {name: [value] for name, value in headers.items()}, "body": upload}
    request |= {"isBase64Encoded": True, "requestContext": {"stage": "prod", "requestId": "c6af9ac6", "accountId": "1"}}
    handler(request, {"function_name": "upload", "aws_request_id": "8f5a2f0c"})


PROGRAMS = {
    "a Django request with SQL": django_request,
    "a celery task": celery_task,
    "an API gateway event": api_gateway_event,
}


def main() -> None:
    epsagon.init(token="t", application_name="shop", metadata_only=False, max_trace_size_bytes=512 * 1024)
    recorded = {}
    for name, program in PROGRAMS.items():
        with capture_traces() as traces:
            program()
        recorded[name] = max(traces, key=lambda trace: len(trace["events"]))["events"]
        print(name, len(recorded[name]), "events", len(orjson.dumps(recorded[name])), "bytes")
    # The same bytes each time: no name and no time in the head.
    TRACES.write_bytes(gzip.compress(orjson.dumps(recorded), mtime=0))


if __name__ == "__main__":
    main()
