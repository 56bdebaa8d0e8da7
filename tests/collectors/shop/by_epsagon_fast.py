"""The shop traced by us. Its web servers are by gunicorn's hooks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery
from flask import Flask

import epsagon_fast
from epsagon_fast.integrations import celery, urllib3


def instrument(app: Celery) -> None:
    """Trace this process's tasks and outgoing requests."""
    celery.instrument(app)
    urllib3.instrument()


def web(app: Flask) -> Flask:
    """Return the application, which is traced."""
    return app


@contextmanager
def block(name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
    """A span with attributes."""
    with epsagon_fast.event(name) as event:
        event.metadata.update(attributes)
        yield


def timed(name: str, began_us: int, took_us: int) -> None:
    """Record a span with these times, which are in its attributes as well."""
    known = {"began_us": began_us, "took_us": took_us}
    times = {"start_time": began_us / 1_000_000, "duration": took_us / 1_000_000}
    epsagon_fast.add_event({"resource": {"name": name, "metadata": known}, **times})
