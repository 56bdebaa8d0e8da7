"""A whole shop for tests: a web server in front, a celery worker behind it, and a second web server behind that."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from celeries import Shop
from places import Place
from waiting import TIMEOUT_S

TASKS = """
import os, requests
from celery import Celery
from epsagon_fast.integrations import urllib3
from epsagon_fast.integrations.celery import instrument

app = Celery("orders")
instrument(app)
urllib3.instrument()

@app.task(ignore_result=True)
def book(order):
    requests.get(os.environ["STOCK_URL"] + "/stock/" + order, timeout=60).raise_for_status()
"""

SHOP_FRONT = """
import orders

def app(environ, start_response):
    orders.book.delay("c-17")
    start_response("202 Accepted", [("Content-Length", "0")])
    return []
"""

STOCK = """
import json, os

def app(environ, start_response):
    with open(os.environ["ASKED"], "w") as file:
        json.dump({key: value for key, value in environ.items() if key.startswith("HTTP_")}, file)
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""

CLIENT = """
import sys, requests
import epsagon_fast as epsagon
from epsagon_fast.integrations import urllib3
urllib3.instrument()
with epsagon.trace("client") as tracer:
    requests.post(sys.argv[1], timeout=60).raise_for_status()
print(tracer.trace_id)
"""

CONF = "python:epsagon_fast.integrations.gunicorn"


@contextmanager
def gunicorn(place: Place, module: str) -> Iterator[str]:
    """Serve a module's `app` with one worker; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It listens already: who comes before gunicorn is ready waits.
        number = listener.fileno()
        words = [sys.executable, "-m", "gunicorn", "-c", CONF, "-b", f"fd://{number}", "-w", "1", f"{module}:app"]
        with (place.scratch / f"{module}.log").open("w") as log:
            server = subprocess.Popen(
                [*words, "--no-control-socket"], env=place.env, cwd=place.scratch, pass_fds=[number], stderr=log
            )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(TIMEOUT_S)
        finally:
            server.kill()


@contextmanager
def front(shop: Shop) -> Iterator[str]:
    """Serve the whole shop; yield the URL of its front."""
    place = shop.place
    for name, text in (("orders", TASKS), ("front", SHOP_FRONT), ("stock", STOCK)):
        (place.scratch / f"{name}.py").write_text(text)
    place.env["ASKED"] = str(place.scratch / "asked")
    with gunicorn(place, "stock") as stock_url:
        place.env["STOCK_URL"] = stock_url
        with shop.worker("-P", "prefork", "-c", "1", app="orders"), gunicorn(place, "front") as url:
            yield url
