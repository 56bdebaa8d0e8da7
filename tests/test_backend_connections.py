"""What clients may take of the backend: time for a request, and connections."""

import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import urllib3
from places import until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, connections, running, summary

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\nContent-Length: 100\r\n"
ASK = b"GET /traces HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """One that is impatient, and serves eight connections."""
    monkeypatch.setattr(connections, "EXCHANGE_S", 0.3)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    with running() as started:
        yield started


def connect(backend: Backend, sent: bytes = b"") -> socket.socket:
    port = urllib3.util.parse_url(backend.url).port
    connection = socket.create_connection(("127.0.0.1", port or 0), timeout=TIMEOUT_S)
    connection.sendall(sent)
    return connection


def status_of_next(connection: socket.socket) -> int:
    """The status of the next answer, which is read whole: its head may come before its body."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status


def ends(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"\r\n", HEAD + b"\r\nhalf of it", ASK + b"G"])
def test_a_request_that_is_not_whole_in_time_ends_its_connection(backend: Backend, sent: bytes) -> None:
    with connect(backend, sent) as connection:
        if sent.startswith(ASK):
            # The rest of a further request.
            assert status_of_next(connection) == 200
            connection.sendall(b"E")
        assert ends(connection)


def test_a_client_that_does_not_read_its_answers_is_given_up(backend: Backend) -> None:
    empty = {"app_name": "shop", "events": [], "exceptions": []}
    backend.store.keep("large", b"t", b"x" * 1_000_000, summary.of(empty))
    # More than both sides' buffers hold.
    ask = ASK.replace(b"/traces", b"/traces/large")
    with connect(backend, ask) as connection:
        assert connection.recv(1) == b"H"
        connection.sendall(ask * 50)
        until(lambda: not backend._server.server_state.connections, "the connection is ended")


def test_a_connection_may_rest_between_requests(backend: Backend) -> None:
    with connect(backend, ASK) as resting, connect(backend, b"G") as slow:
        assert status_of_next(resting) == 200
        # It began later, so the other's time would have been over too.
        assert ends(slow)
        resting.sendall(ASK)
        assert status_of_next(resting) == 200


def test_a_newcomer_is_served_however_many_wait(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "EXCHANGE_S", TIMEOUT_S)
    with ExitStack() as stack:
        used = stack.enter_context(connect(backend, ASK))
        idle = [stack.enter_context(connect(backend, sent)) for sent in (b"", b"G", HEAD + b"\r\n{") * 20]
        newcomer = stack.enter_context(connect(backend, ASK))
        assert status_of_next(newcomer) == 200
        assert ends(used)
        assert all(ends(each) for each in idle[:-7])


def test_there_are_descriptors_left_for_other_things() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert connections.connections_max() == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
