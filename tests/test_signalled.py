"""A server that dies by the signal that stopped it waits for the traces first."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from epsagon_fast.integrations.asgi import TracingMiddleware
from epsagon_fast.integrations.web import signalled


class Stand:
    """A server as uvicorn's looks from outside."""

    def __init__(self, done: list[str]) -> None:
        self._done = done

    def handle_exit(self, *_: object) -> None:
        """Handle a signal."""

    async def shutdown(self, *, sockets: object = None) -> str:
        """End the application."""
        self._done.append(f"shutdown of {sockets}")
        return "down"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was done, in its order."""
    found: list[str] = []
    monkeypatch.setattr(signalled.exiting, "wait_until_safe", lambda: found.append("wait"))
    before = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, before)


async def app(*_: Any) -> None:
    """Do nothing."""


def test_the_wait_comes_after_the_server_s_shutdown_once(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stand, "__module__", "uvicorn.server")
    server = Stand(done)
    middleware = TracingMiddleware(app)
    # Made before the server, which handles signals only when it runs.
    signal.signal(signal.SIGTERM, server.handle_exit)
    for each in (middleware, middleware, TracingMiddleware(app)):
        asyncio.run(each({"type": "lifespan"}, app, app))
    assert asyncio.run(server.shutdown(sockets=3)) == "down"
    assert done == ["shutdown of 3", "wait"]


def test_other_servers_and_handlers_are_left_as_they_are(done: list[str]) -> None:
    server = Stand(done)
    for handler in (server.handle_exit, lambda *_: None, signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGTERM, handler)
        signalled.wait_at_shutdown()
    assert asyncio.run(server.shutdown()) == "down"
    assert done == ["shutdown of None"]
