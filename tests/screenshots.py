"""The pictures in the README and docs/backend.md: `make screenshots` makes them anew, with made-up traces."""

import json
import random
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browsers import chromium, opened

from epsagon_fast.backend import Backend, running
from epsagon_fast.backend.shape import summarize

IMAGES = Path(__file__).parents[1] / "docs" / "images"
REQUESTS = 40
STATEMENT = (
    "SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id"
    " WHERE o.id = %s AND o.state IN ('open', 'paid') LIMIT 1"
)
TRACEBACK = """Traceback (most recent call last):
  File "shop/orders.py", line 41, in pay
    card.charge(order.total)
  File "shop/card.py", line 12, in charge
    raise Declined("no funds")
shop.card.Declined: no funds
"""


class Request:
    """One request of a shop: its traces in three processes."""

    def __init__(self, at: float, slowness: float, chance: random.Random, failed: bool) -> None:
        self.at, self.slowness, self.failed = at, slowness, failed
        self.http_trace_id = uuid.UUID(int=chance.getrandbits(128)).hex
        self._chance = chance
        self.ids = {name: f"{chance.getrandbits(64):016x}" for name in ("call", "publish", "lock")}

    def event(
        self, name: str, kind: str, start: float, length: float, parent: str = "", own: str = "", **metadata: str
    ) -> dict[str, Any]:
        """Make an event of a kind such as `sql SELECT`; times are milliseconds at the request's own slowness."""
        type_, operation = kind.split()
        event = {
            "id": self.ids.get(own) or f"{self._chance.getrandbits(64):016x}",
            "start_time": self.at + start * self.slowness / 1000,
            "resource": {"name": name, "type": type_, "operation": operation, "metadata": metadata},
            "origin": "sdk",
            "duration": length * self.slowness / 1000,
            "error_code": 0,
            "exception": None,
        }
        return event | ({"parent_id": self.ids[parent]} if parent else {})

    def runner(self, *arguments: Any, **metadata: str) -> dict[str, Any]:
        """Make an event that stands for its trace."""
        return self.event(*arguments, http_trace_id=self.http_trace_id, **metadata) | {"origin": "runner"}

    def traces(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the application and the events of each."""
        status = "402" if self.failed else "200"
        body = json.dumps({"amount": 4200, "currency": "EUR", "lines": [{"sku": "A-1", "n": 2}]})
        labels = json.dumps({"user": self._chance.randrange(90), "plan": "gold"})
        web = self.runner(
            "web-1", "http POST", 0, 245, route="/orders/{id}/pay", path="/orders/81/pay", labels=labels,
            status_code="500" if self.failed else "200",
        )  # fmt: skip
        if self.failed:
            exception = {"type": "Declined", "message": "no funds", "traceback": TRACEBACK}
            web |= {"error_code": 2, "exception": {**exception, "time": self.at, "additional_data": {}}}
        yield (
            "shop",
            [
                self.event("postgres", "sql SELECT", 4, 21, statement=STATEMENT, rows="1"),
                self.event("payments", "http POST", 30, 160, own="call", path="/charge", status_code=status, body=body),
                self.event("redis", "redis SET", 195, 3, key="order:81"),
                self.event("receipts", "celery publish", 200, 5, own="publish"),
                self.event("render", "python-function invoke", 207, 30),
                web,
            ],
        )
        yield (
            "payments",
            [
                self.event("acquire lock", "python-function invoke", 52, 100, own="lock"),
                self.event("postgres", "sql INSERT", 80, 60, "lock", statement="INSERT INTO charges VALUES (%s, %s)"),
                self.runner("pay-1", "http POST", 50, 120, "call", path="/charge", status_code=status),
            ],
        )
        yield (
            "worker",
            [
                self.event("smtp", "smtp SEND", 280, 200),
                self.runner("shop.send_receipt", "celery execute", 260, 240, "publish", state="SUCCESS"),
            ],
        )


def fill(backend: Backend, began: float) -> str:
    """Send all traces; return the id of the last request that failed."""
    chance, shown = random.Random(5), ""
    for number in range(REQUESTS):
        failed = number % 9 == 3
        request = Request(began + number * 13, chance.paretovariate(1.8), chance, failed)
        shown = request.http_trace_id if failed else shown
        for app, events in request.traces():
            trace = {"app_name": app, "token": "", "events": events, "exceptions": [], "version": "1"}
            body = json.dumps({**trace, "platform": "python 3.13"}).encode()
            backend.store.keep(uuid.UUID(int=chance.getrandbits(128)).hex, b"", body, summarize(body))
    return shown


def main() -> int:
    """Write the pictures."""
    IMAGES.mkdir(exist_ok=True)
    wide, phone = {"viewport": {"width": 1280, "height": 720}}, {"viewport": {"width": 360, "height": 720}}
    dark = {**wide, "color_scheme": "dark"}
    with running() as backend, chromium() as browser:
        request_id = fill(backend, time.time() - REQUESTS * 13)
        for name, path, options in (
            ("list", "/", wide),
            ("request", f"/requests/{request_id}", wide),
            ("dark", f"/requests/{request_id}", dark),
            ("operations", "/operations?since=15m", wide),
            ("phone", "/", phone),
        ):
            with opened(browser, backend.url, **options) as page:
                page.goto(path)
                page.wait_for_selector("#live:visible, .rows.virtual, .operations")
                page.screenshot(path=IMAGES / f"{name}.png")
                print(IMAGES / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
