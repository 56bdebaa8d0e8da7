"""A server that dies by the signal that stopped it waits for the traces first."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from epsagon_fast.integrations import asgi, wsgi
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
    middleware = asgi.TracingMiddleware(app)
    # Made before the server, which handles signals only when it runs.
    signal.signal(signal.SIGTERM, server.handle_exit)
    for each in (middleware, middleware, asgi.TracingMiddleware(app)):
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


@pytest.fixture
def worker(done: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server's worker process in a container, which SIGTERM would just end."""
    process = SimpleNamespace(parent_process=lambda: "a parent")
    monkeypatch.setitem(sys.modules, "multiprocessing.process", process)
    monkeypatch.setattr(signalled.exiting, "dies_with_us", lambda: True)
    monkeypatch.setattr(signalled.exiting, "say_bye", lambda: done.append(f"bye {signal.getsignal(signal.SIGTERM)!r}"))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return done


@pytest.mark.parametrize("middleware", [asgi.TracingMiddleware, wsgi.TracingMiddleware])
def test_a_worker_that_is_terminated_waits_undisturbed_and_dies(
    worker: list[str], monkeypatch: pytest.MonkeyPatch, middleware: type
) -> None:
    monkeypatch.setattr(
        signalled.os, "kill", lambda pid, number: worker.append(f"kill {pid == os.getpid()} {number:d}")
    )
    middleware(app)
    signal.raise_signal(signal.SIGTERM)
    assert worker == ["bye <Handlers.SIG_IGN: 1>", "wait", "kill True 15"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_worker_dies_of_its_signal_though_the_wait_is_interrupted(
    worker: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signalled.exiting, "wait_until_safe", interrupted)
    monkeypatch.setattr(signalled.os, "kill", lambda pid, number: worker.append(f"kill {number:d}"))
    signalled.wait_when_terminated()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert (worker[-1], signal.getsignal(signal.SIGTERM)) == ("kill 15", signal.SIG_DFL)


def test_no_other_process_gets_a_handler(worker: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    in_thread = threading.Thread(target=signalled.wait_when_terminated)
    in_thread.start()
    in_thread.join()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["multiprocessing.process"], "parent_process", lambda: None)
        signalled.wait_when_terminated()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "multiprocessing.process")
        signalled.wait_when_terminated()
    with monkeypatch.context() as patch:
        patch.setattr(signalled.exiting, "dies_with_us", lambda: False)
        signalled.wait_when_terminated()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signalled.wait_when_terminated()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_child_that_a_worker_forks_is_ended_as_ever(worker: list[str]) -> None:
    signalled.wait_when_terminated()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    pid = os.fork()
    if pid == 0:
        os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
    assert os.waitpid(pid, 0)[1] == 0
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
