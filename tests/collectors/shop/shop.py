"""A web server that sends a task to a worker, which asks a second web server, which fails. Each is its own process.

    gunicorn "shop:front()"        celery -A shop:worker worker        gunicorn "shop:stock()"

TRACED_BY names the module that traces it: `by_epsagon_fast`, or `by_opentelemetry`.
"""

import importlib
import os
import time
from contextlib import suppress

import urllib3
from celery import Celery
from flask import Flask

tracing = importlib.import_module(os.environ["TRACED_BY"])
worker = Celery("shop", config_source="shopconfig")
tracing.instrument(worker)


@worker.task(name="shop.pack")
def pack(number: int) -> int:
    with suppress(ValueError), tracing.block("print label", {"copies": 2}):
        raise ValueError("no paper")
    return urllib3.PoolManager(retries=False).request("GET", f"{os.environ['STOCK_URL']}/stock/{number}").status


def front() -> Flask:
    app = tracing.web(Flask("front"))

    @app.get("/checkout/<int:number>")
    def checkout(number: int) -> str:
        with tracing.block("charge", {"card": "visa", "cents": 1999, "share": 0.5, "express": True}):
            tracing.timed("weigh", time.time_ns() // 1000, 789)
        pack.delay(number)
        return "thanks"

    return app


def stock() -> Flask:
    app = tracing.web(Flask("stock"))

    @app.get("/stock/<int:number>")
    def count(number: int) -> str:
        raise LookupError("no such shelf")

    return app
