"""Delivery, with real sockets on loopback."""

import contextlib
import errno
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from servers import (
    HOST,
    Behaviour,
    Identity,
    Server,
    certificate,
    closing,
    drip,
    hang,
    mutual,
    raw,
    reply,
    reset,
    status,
    tunnel,
)
from waiting import TIMEOUT_S, until

from epsagon_fast import __version__
from epsagon_fast.collector import background
from epsagon_fast.collector.formats.epsagon import Epsagon
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending import deadline, trust, wire
from epsagon_fast.collector.sending import delivery as module
from epsagon_fast.collector.sending.backoff import MAX_IN_FLIGHT
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.collector.sending.outbox.outbox import Outbox
from epsagon_fast.collector.sending.verdict import MAX_RETRY_AFTER_S, TLS_RETRY_S, Verdict
from epsagon_fast.protocol import Outcome

TOKEN = 'tok"en/of-someone'
TRACE_ID = bytes(range(16))
# How long a test waits for what never comes.
SHORT_S = 0.3


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    until(lambda: not senders(), lambda: f"no sender is left: {senders()}")


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery(log=logging.getLogger("test.delivery"))
    yield made
    made.close(TIMEOUT_S)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return certificate(tmp_path_factory.mktemp("tls"))


class Clock:
    """Stands for the module `time`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


def senders() -> list[FrameType]:
    """Return where the senders are now."""
    stacks = [[frame for frame, _ in walk_stack(newest)] for newest in sys._current_frames().values()]
    return [stack[0] for stack in stacks if any(frame.f_code is Delivery._send_all.__code__ for frame in stack)]


def to(url: str, timeout_s: float = TIMEOUT_S, **more: str) -> Destination:
    return Destination(url, TOKEN, timeout_s, **more)


def take(delivery: Delivery, count: int) -> list[Verdict]:
    taken: list[Verdict] = []

    def complete() -> bool:
        taken.extend(delivery.verdicts())
        return len(taken) >= count

    until(complete, lambda: f"{count} verdicts come; {len(taken)} did")
    assert len(taken) == count
    return taken


def send(delivery: Delivery, destination: Destination, body: bytes = b"{}", trace_id: bytes = TRACE_ID) -> Verdict:
    delivery.submit([Parcel(trace_id, destination, body)])
    [verdict] = take(delivery, 1)
    assert verdict.trace_ids == [trace_id]
    return verdict


def numbered(number: int) -> bytes:
    return number.to_bytes(16, "big")


# What is sent


def test_a_delivered_trace_carries_its_headers_and_body(delivery: Delivery, server: Server) -> None:
    body = json.dumps({"app_name": "shop", "n": list(range(50_000))}).encode()
    verdict = send(delivery, to(server.url + "in?way=1"), body)
    assert verdict[:-1] == ([TRACE_ID], Outcome.DELIVERED, False, None, False, False)
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/in?way=1", body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["idempotency-key"] == "000102030405060708090a0b0c0d0e0f"
    assert request.headers["user-agent"] == f"epsagon-fast/{__version__}"


def test_a_token_goes_out_as_utf8(delivery: Delivery, server: Server) -> None:
    send(delivery, Destination(server.url, "géheim", TIMEOUT_S))
    assert server.requests[0].headers["authorization"].encode("latin-1") == "Bearer géheim".encode()


def test_what_requests_share_is_written_once_and_anew_when_it_changes(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    head = wire.Head.__init__

    def noted(self: wire.Head, *args: Any) -> None:
        written.append(args)
        head(self, *args)

    monkeypatch.setattr(wire.Head, "__init__", noted)
    for number in range(3):
        send(delivery, to(server.url), trace_id=numbered(number))
    assert len(written) == 1
    for token in ("a", "b"):
        send(delivery, Destination(server.url, token, TIMEOUT_S))
    tokens = [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
    assert tokens == [TOKEN, TOKEN, TOKEN, "a", "b"]
    assert [request.headers["idempotency-key"] for request in server.requests[:3]] == [
        numbered(number).hex() for number in range(3)
    ]


def test_a_kept_connections_timeout_is_set_only_where_it_differs(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []
    settimeout = socket.socket.settimeout

    def noted(self: socket.socket, timeout_s: float) -> None:
        bounds.append(timeout_s)
        settimeout(self, timeout_s)

    monkeypatch.setattr(deadline._Socket, "settimeout", noted, raising=False)
    send(delivery, to(server.url, 1000.0))
    known = len(bounds)
    for number in range(3):
        send(delivery, to(server.url, 1000.0), trace_id=numbered(number))
    assert len(bounds) == known
    send(delivery, to(server.url, 2000.0))
    assert len(bounds) == known + 1
    assert bounds[-1] == pytest.approx(2000.0, rel=deadline.SLACK)
    assert server.connections == 1


def test_connections_are_kept(delivery: Delivery, server: Server) -> None:
    for number in range(20):
        send(delivery, to(server.url), trace_id=numbered(number))
    assert server.connections == 1


# What becomes of it


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_is_delivered(delivery: Delivery, server: Server, code: int) -> None:
    server.behave = status(code, body=b"")
    assert send(delivery, to(server.url)).outcome == Outcome.DELIVERED


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_transient_status_may_be_retried(delivery: Delivery, server: Server, code: int) -> None:
    server.behave = status(code)
    verdict = send(delivery, to(server.url))
    assert (verdict.outcome, verdict.outcome.reason, verdict.retry) == (Outcome.STORED, str(code), True)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 422, 501, 505, 304, 101])
def test_every_other_status_is_a_rejection(delivery: Delivery, server: Server, code: int) -> None:
    server.behave = raw(reply(code, {}, b""))
    verdict = send(delivery, to(server.url))
    assert (verdict.outcome, verdict.outcome.reason, verdict.retry) == (Outcome.REJECTED, str(code), False)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(delivery: Delivery, server: Server, code: int) -> None:
    with Server() as elsewhere:
        server.behave = status(code, {"Location": elsewhere.url})
        assert str(send(delivery, to(server.url)).outcome) == f"REJECTED ({code})"
        assert (elsewhere.connections, server.connections) == (0, 1)


def test_retry_after_is_read_in_seconds_and_as_a_date(delivery: Delivery, server: Server) -> None:
    server.behave = status(503, {"Retry-After": "7"})
    assert send(delivery, to(server.url)).retry_after_s == 7.0
    server.behave = status(429, {"Retry-After": formatdate(1030, usegmt=True), "Date": formatdate(1000, usegmt=True)})
    assert send(delivery, to(server.url)).retry_after_s == 30.0
    server.behave = status(429, {"Retry-After": formatdate(time.time() + 1e6, usegmt=True)})
    assert send(delivery, to(server.url)).retry_after_s == MAX_RETRY_AFTER_S
    server.behave = status(429, {"Retry-After": "soon"})
    assert send(delivery, to(server.url)).retry_after_s is None


def test_a_refused_connection_may_be_retried(delivery: Delivery, server: Server) -> None:
    server.close()
    verdict = send(delivery, to(server.url))
    assert (str(verdict.outcome), verdict.retry) == ("STORED (connection)", True)


def test_a_server_that_is_back_is_found_again(delivery: Delivery, server: Server) -> None:
    send(delivery, to(server.url))
    server.close()
    assert send(delivery, to(server.url)).retry
    with Server(port=server.port):
        assert send(delivery, to(server.url)).outcome == Outcome.DELIVERED


@pytest.mark.parametrize("behave", [reset, raw(b""), raw(b"SMTP ready\r\n\r\n"), raw(b"HTTP/1.1 20")])
def test_a_connection_that_breaks_may_be_retried(delivery: Delivery, server: Server, behave: object) -> None:
    server.behave = behave
    assert str(send(delivery, to(server.url)).outcome) == "STORED (connection)"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"


@pytest.mark.parametrize("behave", [hang, drip(HEAD), drip(b"X-A: b\r\n" * 90, at_once=HEAD)])
def test_the_timeout_bounds_the_wait_for_an_answer(delivery: Delivery, server: Server, behave: object) -> None:
    server.behave = behave
    assert str(send(delivery, to(server.url, SHORT_S)).outcome) == "STORED (timeout)"


@pytest.mark.parametrize("rest", [b"x" * 1000, b"1\r\nx\r\n" * 1000])
def test_a_dripping_body_cannot_take_back_its_status(delivery: Delivery, server: Server, rest: bytes) -> None:
    length = b"Transfer-Encoding: chunked" if b"\r" in rest else b"Content-Length: 1000"
    server.behave = drip(rest, at_once=b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
    assert send(delivery, to(server.url, SHORT_S)).outcome == Outcome.DELIVERED
    until(lambda: delivery.pending == 0, "nothing is pending")


def test_a_server_that_takes_no_body_ends_with_the_timeout(delivery: Delivery) -> None:
    with socket.create_server((HOST, 0)) as deaf:
        url = f"http://{HOST}:{deaf.getsockname()[1]}/"
        assert str(send(delivery, to(url, SHORT_S), bytes(50_000_000)).outcome) == "STORED (timeout)"


def test_a_server_that_takes_no_connection_ends_with_the_timeout(delivery: Delivery) -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind((HOST, 0))
        full.listen(0)
        for _ in range(3):
            early = waiting.enter_context(socket.socket())
            early.setblocking(False)
            early.connect_ex(full.getsockname())
        verdict = send(delivery, to(f"http://{HOST}:{full.getsockname()[1]}/", SHORT_S))
        assert str(verdict.outcome) == "STORED (timeout)"


def test_a_huge_answer_is_not_read_to_its_end(delivery: Delivery, server: Server) -> None:
    server.behave = status(200, body=bytes(50_000_000))
    assert send(delivery, to(server.url)).outcome == Outcome.DELIVERED
    server.behave = status(200)
    assert send(delivery, to(server.url)).outcome == Outcome.DELIVERED
    assert server.connections == 2


def test_a_kept_connection_that_was_closed_is_replaced_unnoticed(delivery: Delivery, server: Server) -> None:
    server.behave = closing()
    for number in range(200):
        delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    assert {verdict.outcome for verdict in take(delivery, 200)} == {Outcome.DELIVERED}


def test_a_request_is_sent_again_at_once_only_over_a_kept_connection(delivery: Delivery, server: Server) -> None:
    send(delivery, to(server.url))
    server.behave = reset
    assert send(delivery, to(server.url)).retry
    assert [request.connection for request in server.requests] == [1, 1, 2]
    assert send(delivery, to(server.url)).retry
    assert [request.connection for request in server.requests] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "backend",
        "//host/",
        "ftp://host/",
        "http://",
        "http:///path",
        "http://[::1",
        "http://host:99999/",
        "http://a..b/",
        f"http://{'a' * 70}.com/",
        "unix:///tmp/socket",
    ],
)
def test_a_url_that_cannot_be_asked_drops_the_trace(delivery: Delivery, url: str) -> None:
    assert str(send(delivery, to(url)).outcome) == "DROPPED (bad_url)"


def test_a_bad_proxy_or_token_drops_the_trace(delivery: Delivery, server: Server) -> None:
    assert str(send(delivery, to(server.url, proxy_url="socks5://host:1")).outcome) == "DROPPED (bad_proxy)"
    injected = Destination(server.url, "token\r\nX-Admin: 1", TIMEOUT_S)
    assert str(send(delivery, injected).outcome) == "DROPPED (bad_token)"
    assert server.connections == 0


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@pytest.mark.usefixtures("no_names")
def test_an_unknown_name_may_be_retried_but_not_the_closed_service(delivery: Delivery) -> None:
    assert str(send(delivery, to("https://backend.example/")).outcome) == "STORED (dns)"
    verdict = send(delivery, to("https://us-east-1.tc.epsagon.com"))
    assert (str(verdict.outcome), verdict.retry) == ("DROPPED (no_backend)", False)
    # Here it is the proxy's name that is unknown, and that may come back.
    through = to("https://us-east-1.tc.epsagon.com", proxy_url="http://proxy.example:1")
    assert str(send(delivery, through).outcome) == "STORED (proxy)"


def test_all_that_waited_arrives_once_the_backend_is_well(delivery: Delivery, server: Server, tmp_path: Path) -> None:
    server.behave = status(503)
    sending = Dispatch(delivery, Outbox(str(tmp_path), b"us", log=logging.getLogger("test")))
    for number in range(200):
        sending.add(Parcel(numbered(number), to(server.url), b"{}"))

    def pass_once() -> bool:
        # A hundred times faster than the clock, so that nobody waits for the pauses.
        sending.step(time.monotonic() * 100)
        return not sending.stored and not sending.held_bytes

    until(lambda: pass_once() or len(server.requests) > MAX_IN_FLIGHT + 5, "it is asked again")
    assert sending.stored == 200
    server.behave = status(200)
    until(pass_once, "all is sent")
    # A collector of another test may still look for a server that had this port before.
    ours = [each.headers for each in server.requests if each.headers["authorization"] == f"Bearer {TOKEN}"]
    assert {headers["idempotency-key"] for headers in ours} == {numbered(n).hex() for n in range(200)}
    sending.finish(0.0, 1.0, 5.0)


# TLS and proxies


def test_tls_is_verified_with_the_ca_file(delivery: Delivery, identity: Identity) -> None:
    with Server(tls=identity) as server:
        assert send(delivery, to(server.url, ca_file=identity.ca_file)).outcome == Outcome.DELIVERED
        assert send(delivery, to(server.url, ca_file=identity.ca_file)).outcome == Outcome.DELIVERED
        assert server.connections == 1


def test_a_failed_tls_check_is_retried_slowly(
    delivery: Delivery, identity: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = certificate(tmp_path, "other.example")
    with Server(tls=identity) as server, Server(tls=other) as misnamed:
        for destination in (
            to(server.url),
            to(server.url, ca_file=other.ca_file),
            to(server.url, ca_file=str(tmp_path / "missing.pem")),
            to(misnamed.url, ca_file=other.ca_file),
        ):
            caplog.clear()
            verdict = send(delivery, destination)
            assert (str(verdict.outcome), verdict.retry_after_s) == ("STORED (tls)", TLS_RETRY_S)
            assert len(caplog.messages) == 1
        assert server.requests == misnamed.requests == []


def test_a_server_that_asks_is_shown_the_clients_certificate(delivery: Delivery, tmp_path: Path) -> None:
    proof = mutual(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(Path(proof.key).read_text() + Path(proof.certificate).read_text())
    with Server(tls=proof) as server:
        shown = to(server.url, ca_file=proof.ca_file, client_certificate=proof.certificate, client_key=proof.key)
        assert send(delivery, shown).outcome == Outcome.DELIVERED
        in_one = to(server.url, ca_file=proof.ca_file, client_certificate=str(both))
        assert send(delivery, in_one).outcome == Outcome.DELIVERED
        unknown = send(delivery, to(server.url, ca_file=proof.ca_file))
        assert (str(unknown.outcome), unknown.retry_after_s) == ("STORED (tls)", TLS_RETRY_S)
        assert len(server.requests) == 2


@pytest.mark.parametrize("broken", ["missing", "of another", "encrypted", "a FIFO"])
def test_a_certificate_that_cannot_be_shown_keeps_the_trace(
    delivery: Delivery, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    proof = mutual(tmp_path)
    key = tmp_path / "other.pem"
    if broken == "of another":
        key.write_bytes(trustme.CA().private_key_pem.bytes())
    elif broken == "encrypted":
        loaded = serialization.load_pem_private_key(Path(proof.key).read_bytes(), None)
        how = serialization.BestAvailableEncryption(b"password")
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        key.write_bytes(loaded.private_bytes(*form))
    elif broken == "a FIFO":
        os.mkfifo(key)
    with Server(tls=proof) as server:
        shown = to(server.url, ca_file=proof.ca_file, client_certificate=proof.certificate, client_key=str(key))
        verdict = send(delivery, shown)
    assert (str(verdict.outcome), verdict.retry_after_s) == ("STORED (tls)", TLS_RETRY_S)
    assert "client certificate or its key" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_mended_ca_file_is_read_again(delivery: Delivery, identity: Identity, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Path(certificate(tmp_path, "other.example").ca_file).read_bytes())
    with Server(tls=identity) as server:
        assert send(delivery, to(server.url, ca_file=str(ca_file))).retry
        ca_file.write_bytes(Path(identity.ca_file).read_bytes())
        assert send(delivery, to(server.url, ca_file=str(ca_file))).outcome == Outcome.DELIVERED


def test_a_directory_of_certificates_is_trusted_too(delivery: Delivery, identity: Identity, tmp_path: Path) -> None:
    named = tmp_path / "0a1b2c3d.0"
    named.write_bytes("# Főtanúsítvány\n".encode() + Path(identity.ca_file).read_bytes())
    # OpenSSL would not look at these.
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "00000000.0").symlink_to("removed.pem")
    (tmp_path / "11111111.0").write_text("no certificate")
    with Server(tls=identity) as server:
        assert send(delivery, to(server.url, ca_file=str(tmp_path))).outcome == Outcome.DELIVERED


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA"])
def test_a_ca_file_without_a_certificate_keeps_the_trace(
    delivery: Delivery, identity: Identity, tmp_path: Path, content: bytes
) -> None:
    # It may just be being written.
    (tmp_path / "ca.pem").write_bytes(content)
    with Server(tls=identity) as server:
        verdict = send(delivery, to(server.url, ca_file=str(tmp_path / "ca.pem")))
        assert str(verdict.outcome) == "STORED (tls)"


def test_a_ca_file_that_is_no_file_fails_at_once_and_holds_up_no_other(
    delivery: Delivery, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo, linked, endless = tmp_path / "fifo.pem", tmp_path / "linked.pem", tmp_path / "endless.pem"
    os.mkfifo(fifo)
    linked.symlink_to(fifo)
    endless.touch()
    os.truncate(endless, trust.MAX_CA_BYTES + 1)
    paths = [*map(str, (fifo, linked, endless)), "/dev/zero", "/dev/null"]
    for number in range(80):
        delivery.submit(
            [Parcel(numbered(number), to(f"https://{HOST}:{number + 1}/", 60.0, ca_file=paths[number % 5]), b"{}")]
        )
    delivery.submit([Parcel(numbered(80), to(server.url), b"{}")])
    verdicts = {verdict.trace_ids[0]: verdict for verdict in take(delivery, 81)}
    assert verdicts.pop(numbered(80)).outcome == Outcome.DELIVERED
    assert {str(verdict.outcome) for verdict in verdicts.values()} == {"STORED (tls)"}
    assert "the CA file cannot be read: not a regular file" in caplog.text


# What cannot be cut short


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A mount whose server is away, and a resolver that does not know `dead.example`: neither answers."""
    mount, back, find, opened = tmp_path / "mount", threading.Event(), socket.getaddrinfo, os.open

    def resolve(host: str, *rest: Any, **options: Any) -> Any:
        is_asked = host == "dead.example" and not options.get("flags", 0) & socket.AI_NUMERICHOST
        return hang_until_back() if is_asked else find(host, *rest, **options)

    def reach(path: Any, *rest: Any, **options: Any) -> int:
        return opened(path, *rest, **options) if not str(path).startswith(str(mount)) else hang_until_back()

    def hang_until_back() -> Any:
        back.wait(60)
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(os, "open", reach)
    yield mount
    back.set()
    until(lambda: not lookup_threads(), "no lookup is left")


def lookup_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "epsagon-lookup"]


def test_a_name_without_an_answer_ends_with_the_timeout(delivery: Delivery, server: Server, dead: Path) -> None:
    for number in range(20):
        delivery.submit([Parcel(numbered(number), to(f"http://dead.example:1/{number}", SHORT_S), b"{}")])
    assert {str(verdict.outcome) for verdict in take(delivery, 20)} == {"STORED (timeout)"}
    assert len(lookup_threads()) == 1
    assert send(delivery, to(server.url)).outcome == Outcome.DELIVERED


def test_a_ca_file_on_a_dead_mount_ends_with_the_timeout(
    delivery: Delivery, identity: Identity, dead: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tls=identity) as server:
        for number in range(20):
            delivery.submit(
                [Parcel(numbered(number), to(f"{server.url}{number}", SHORT_S, ca_file=str(dead / "ca.pem")), b"{}")]
            )
        assert {str(verdict.outcome) for verdict in take(delivery, 20)} == {"STORED (timeout)"}
        assert len(lookup_threads()) == 1
        assert "the CA file" in caplog.text
        assert send(delivery, to(server.url, ca_file=identity.ca_file)).outcome == Outcome.DELIVERED


def test_tls_is_bound_by_the_timeout_too(delivery: Delivery, identity: Identity) -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"https://{HOST}:{silent.getsockname()[1]}/"
        assert str(send(delivery, to(url, SHORT_S, ca_file=identity.ca_file)).outcome) == "STORED (timeout)"
    with Server(drip(HEAD), tls=identity) as server:
        verdict = send(delivery, to(server.url, SHORT_S, ca_file=identity.ca_file))
        assert str(verdict.outcome) == "STORED (timeout)"


def test_a_kept_tls_connection_that_was_closed_is_replaced_unnoticed(delivery: Delivery, identity: Identity) -> None:
    with Server(closing(), tls=identity) as server:
        destination = to(server.url, ca_file=identity.ca_file)
        assert {send(delivery, destination).outcome for _ in range(20)} == {Outcome.DELIVERED}


def test_a_proxy_sees_the_token_of_https_traces_never(delivery: Delivery, identity: Identity) -> None:
    with Server(tls=identity) as server, Server(tunnel) as proxy:
        through = proxy.url.replace("//", "//me:p%40ss@")
        destination = to(server.url, ca_file=identity.ca_file, proxy_url=through)
        assert send(delivery, destination).outcome == Outcome.DELIVERED
        [request] = proxy.requests
        assert (request.method, request.path) == ("CONNECT", f"{HOST}:{server.port}")
        assert request.headers == {"proxy-authorization": "Basic bWU6cEBzcw=="}
        assert "proxy-authorization" not in server.requests[0].headers


def test_a_plain_trace_goes_through_the_proxy_whole(delivery: Delivery) -> None:
    with Server() as proxy:
        assert send(delivery, to("http://backend.invalid/in", proxy_url=proxy.url)).outcome == Outcome.DELIVERED
        assert proxy.requests[0].path == "http://backend.invalid/in"


def test_a_proxy_that_wants_other_credentials_does_not_cost_a_plain_trace(delivery: Delivery) -> None:
    with Server(status(407)) as proxy:
        assert str(send(delivery, to("http://backend.invalid/in", proxy_url=proxy.url)).outcome) == "STORED (proxy)"
        # It may be the backend's own word, too.
        assert str(send(delivery, to(proxy.url)).outcome) == "REJECTED (407)"


def test_a_proxy_that_fails_may_be_retried(delivery: Delivery, identity: Identity) -> None:
    with Server(tls=identity) as server:
        with Server(status(407)) as proxy:
            destination = to(server.url, SHORT_S, ca_file=identity.ca_file, proxy_url=proxy.url)
            assert str(send(delivery, destination).outcome) == "STORED (proxy)"
            proxy.behave = hang
            assert str(send(delivery, destination).outcome) == "STORED (timeout)"
        assert str(send(delivery, destination).outcome) == "STORED (proxy)"
        with Server(tunnel, tls=identity) as proxy:
            untrusting = to(server.url, proxy_url=proxy.url)
            assert str(send(delivery, untrusting).outcome) == "STORED (tls)"
            trusting = to(server.url, proxy_url=proxy.url, ca_file=identity.ca_file)
            assert send(delivery, trusting).outcome == Outcome.DELIVERED


# Logs


HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("form", ["", "otlp+", "otlp-protobuf+"])
@pytest.mark.parametrize(
    ("headers", "body", "is_page"),
    [
        ({}, b"\r\n<!DOCTYPE html><title>Sign in</title>", True),
        ({}, b"<html><body>", True),
        (HTML, b"\xef\xbb\xbf<!-- our portal --><html>", True),
        (HTML, b"<h1>It works!</h1>", True),
        # What many a framework says for nothing, and what else begins so.
        *((HTML, b"", False), (HTML, b"OK", False), (HTML, b"{}", False)),
        *(({}, b"<ok/>", False), ({}, b'"<html>"', False)),
    ],
)
def test_a_page_for_people_takes_no_trace(
    delivery: Delivery,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    form: str,
    headers: dict[str, str],
    body: bytes,
    is_page: bool,
) -> None:
    server.behave = status(200, headers, body)
    for _ in range(2):
        verdict = send(delivery, to(form + server.url))
        assert (verdict.outcome, verdict.retry) == (Outcome.REJECTED if is_page else Outcome.DELIVERED, False)
        assert verdict.outcome.reason == ("web_page" if is_page else None)
    assert caplog.text.count("answered with a page for people") == is_page


def test_a_rejection_is_logged_once_with_what_the_server_said(
    delivery: Delivery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    echo = f"{TOKEN} {json.dumps(TOKEN)} is\nunknown {'x' * 300}".encode()
    server.behave = status(401, body=echo)
    for _ in range(3):
        send(delivery, to(server.url + "secret-path?key=1", TIMEOUT_S), f'{{"token":{json.dumps(TOKEN)}}}'.encode())
    [message] = caplog.messages
    assert message.startswith(f'http://{HOST}:{server.port} rejected a trace: 401 \'**** "****" is\\nunknown xxx')
    assert message.count("x") < 200 and "en/of" not in message and "secret-path" not in message
    server.behave = status(403)
    send(delivery, to(server.url))
    assert len(caplog.messages) == 2


def test_nothing_secret_is_logged_whatever_happens(
    delivery: Delivery, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mad = [reset, hang, status(401), status(503), raw(b"HTTP/1.1 200 OK\r\nmad\r\n\r\n"), raw(b"?"), status(302)]
    with Server() as server, Server(tls=identity) as secure:
        urls = [server.url, secure.url, "http://[::1", "http://backend.invalid:1/"]
        urls = [url.replace("//", "//user:hidden@", 1) + "hidden?key=hidden" for url in urls]
        proxies = [None, server.url.replace("//", "//me:hidden@"), "ftp://me:hidden@host"]
        for behave in mad:
            server.behave = secure.behave = behave
            for url in urls:
                for proxy in proxies:
                    delivery.submit(
                        [Parcel(TRACE_ID, Destination(url, "hidden\u00e9", SHORT_S, proxy), b'{"token":"hidden"}')]
                    )
            delivery.submit([Parcel(TRACE_ID, Destination(server.url, "hidden\n", SHORT_S), b"{}")])
        take(delivery, len(mad) * (len(urls) * len(proxies) + 1))
    assert "hidden" not in caplog.text
    assert "traces wait" in caplog.text


def test_a_terminal_obeys_nothing_that_a_proxy_or_server_said(
    delivery: Delivery, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    escape = b"\x1b]0;owned\x07\xc2\x9b31m"
    with Server(raw(b"HTTP/1.1 407 " + escape + b"x" * 9000 + b"\r\n\r\n")) as proxy:
        send(delivery, to("https://backend.invalid/", proxy_url=proxy.url))
    with Server(status(418, body=escape * 1000)) as server:
        send(delivery, to(server.url))
    refused, rejected = caplog.messages
    assert "traces wait: proxy: 'Tunnel connection failed: 407 \\x1b]0;owned\\x07" in refused
    assert "rejected a trace: 418 '\\x1b]0;owned\\x07\\x9b31m" in rejected
    assert all(message.isprintable() and len(message) < 1000 for message in caplog.messages)


def test_a_proxy_that_repeats_its_password_gives_nothing_away(
    delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    told = b64encode("me:h\u00efdden".encode())
    with Server(raw(b"HTTP/1.1 407 no " + told + b" me:h%C3%AFdden h%C3%AFdden\r\n\r\n")) as proxy:
        proxy_url = proxy.url.replace("//", "//me:h%C3%AFdden@")
        send(delivery, to("https://backend.invalid/", proxy_url=proxy_url))
    (message,) = caplog.messages
    assert "407 no **** me:**** ****" in message


def test_a_complaint_comes_again_after_the_destination_was_well(
    delivery: Delivery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for code in (503, 503, 200, 503):
        server.behave = status(code)
        send(delivery, to(server.url))
    assert [message.rpartition(" ")[0].split()[-3:] for message in caplog.messages] == [
        ["answered", "503;", "traces"]
    ] * 2


def test_no_repr_shows_a_secret() -> None:
    destination = Destination("http://user:hidden@host:1/hidden?hidden", "hidden", 1.0, "http://me:hidden@proxy", "/ca")
    parcel = Parcel(TRACE_ID, destination, b'{"token":"hidden"}')
    for shown in (destination, [destination], parcel, f"{destination}", str(parcel)):
        assert "hidden" not in repr(shown)
    assert "http://host:1" in repr(destination)


# Threads


def after(gate: threading.Event | threading.Barrier) -> Behaviour:
    """Answer when a gate is open."""

    def behave(_: object, connection: socket.socket) -> bool:
        gate.wait(TIMEOUT_S)
        connection.sendall(reply(200, {}, b"{}"))
        return True

    return behave


def test_a_backlog_gets_more_senders_and_idle_ones_leave(delivery: Delivery, server: Server) -> None:
    gate = threading.Event()

    server.behave = after(gate)
    for number in range(100):
        delivery.submit([Parcel(numbered(number), to(server.url, TIMEOUT_S), b"{}")])
    until(lambda: not delivery.verdicts() and len(server.requests) == 32, "half of the senders are busy")
    # Half of all for one destination: the others' share stays free.
    assert 32 <= delivery.threads <= 64
    gate.set()
    take(delivery, 100)
    until(lambda: delivery.threads == 4, "those that idle leave")


def test_a_sender_that_is_awake_takes_what_follows_and_wakes_no_other(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAKE_S", 1000.0)
    gate = threading.Barrier(4)

    server.behave = after(gate)
    for number in range(4):
        delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    take(delivery, 4)
    server.behave = status(200)
    until(lambda: delivery._idle == 4, "all are idle")
    with delivery._changed:
        for number in range(50):
            delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    take(delivery, 50)
    assert len({request.connection for request in server.requests[4:]}) == 1


def test_no_other_sender_is_woken_while_one_makes_requests(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Barrier(2)
    server.behave = after(gate)
    for number in range(2):
        delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    take(delivery, 2)
    server.behave = status(200)
    until(lambda: delivery._idle == delivery.threads, "all are idle")
    clock = Clock(time.monotonic() + 1000.0)
    with delivery._changed, monkeypatch.context() as patch:
        patch.setattr(module, "time", clock)
        for number in range(3):
            delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
        clock.now += 2 * module.WAKE_S
        delivery._made_at = clock.now
        delivery.verdicts()
        assert delivery._woken == 1
        clock.now += 2 * module.WAKE_S
        delivery.verdicts()
        assert delivery._woken == 2
    take(delivery, 3)


def test_senders_start_one_by_one_while_requests_are_made(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    server.behave = after(gate)
    for number in range(4):
        delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    server.wait_for(4)
    clock = Clock(time.monotonic() + 1000.0)
    with delivery._changed, monkeypatch.context() as patch:
        patch.setattr(module, "time", clock)
        delivery.submit([Parcel(numbered(4), to(server.url), b"{}")])
        # How long until the next look, whether a request was made shortly before, and how many senders there are then.
        for pause_s, is_made, senders in (
            (0.0, True, 4),
            (2, True, 5),
            (0.5, True, 5),
            (0.6, True, 6),
            (0.1, False, 7),
        ):
            clock.now += pause_s * module.PATIENCE_S
            delivery._made_at = clock.now - (0.0 if is_made else 2 * module.WAKE_S)
            delivery.verdicts()
            assert delivery.threads == senders
            until(lambda: not delivery._coming, "a sender that was started has begun")
    gate.set()
    take(delivery, 5)


def test_the_first_sender_does_not_wait_for_work(delivery: Delivery) -> None:
    # It has much to import.
    for _ in range(2):
        delivery.prepare()
        assert delivery.threads == 1


def test_a_destination_that_hangs_does_not_starve_the_others(server: Server) -> None:
    delivery = Delivery(log=logging.getLogger("test.delivery"), threads_min=2, threads_max=8)
    with Server(hang) as one, Server(hang) as other:
        for number in range(100):
            delivery.submit([Parcel(numbered(number), to(one.url, 60.0), b"{}")])
            delivery.submit([Parcel(numbered(1000 + number), to(other.url, 60.0), b"{}")])
        until(lambda: not delivery.verdicts() and len(one.requests) + len(other.requests) >= 5, "both hang")
        for number in range(50):
            assert send(delivery, to(server.url), trace_id=numbered(2000 + number)).outcome == Outcome.DELIVERED
        assert delivery.threads <= 8
        assert delivery.pending == 200
        delivery.close(0.0)
    until(lambda: delivery.threads == 0, "the senders leave")


def test_submit_and_verdicts_do_not_wait_for_the_network(delivery: Delivery, server: Server) -> None:
    server.behave = hang
    caller = threading.get_ident()
    asked = []
    original = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        asked.append(threading.get_ident())
        original(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        delivery.submit([Parcel(TRACE_ID, to(server.url, SHORT_S), b"{}")])
        assert delivery.verdicts() == []
        take(delivery, 1)
    assert asked and caller not in asked


def test_what_is_pending_is_counted_until_its_verdict_is_taken(delivery: Delivery, server: Server) -> None:
    for number in range(10):
        delivery.submit([Parcel(numbered(number), to(server.url), b"x" * 100)])
    assert (delivery.pending, delivery.pending_bytes) == (10, 1000)
    server.wait_for(10)
    assert delivery.pending == 10
    take(delivery, 10)
    assert (delivery.pending, delivery.pending_bytes) == (0, 0)


def test_close_sends_what_was_submitted(server: Server) -> None:
    delivery = Delivery(log=logging.getLogger("test.delivery"))
    for number in range(50):
        delivery.submit([Parcel(numbered(number), to(server.url), b"{}")])
    delivery.close(TIMEOUT_S)
    assert {result.outcome for result in delivery.verdicts()} == {Outcome.DELIVERED}
    assert len(server.requests) == 50
    with pytest.raises(RuntimeError, match="closed"):
        delivery.submit([Parcel(TRACE_ID, to(server.url), b"{}")])


def test_close_does_not_wait_for_a_server_that_hangs(server: Server) -> None:
    server.behave = hang
    delivery = Delivery(log=logging.getLogger("test.delivery"))
    for number in range(50):
        delivery.submit([Parcel(numbered(number), to(server.url, 60.0), b"{}")])
    server.wait_for(4)
    delivery.close(0.05)
    assert delivery.pending == 50
    server.close()
    until(lambda: delivery.threads == 0, "the senders leave")
    # What was in flight has a result, the others are left to the journal.
    assert 4 <= len(delivery.verdicts()) < 50


def test_a_system_without_threads_to_give_is_asked_again(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(background, "start_new_thread", refuse)
        delivery.submit([Parcel(TRACE_ID, to(server.url), b"{}")])
        assert (delivery.verdicts(), delivery.threads) == ([], 0)
    assert [verdict.outcome for verdict in take(delivery, 1)] == [Outcome.DELIVERED]


def test_an_unforeseen_error_is_a_verdict_too(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Epsagon, "post", lambda *_: 1 / 0)
    assert str(send(delivery, to(server.url)).outcome) == "STORED (internal)"


def test_a_failure_lets_go_of_its_body_without_a_garbage_collection(delivery: Delivery, server: Server) -> None:
    body = bytes(1000)
    references = sys.getrefcount(body)
    gc.disable()
    try:
        for behave in (status(200), reset, hang, raw(b"?"), status(503)):
            server.behave = behave
            send(delivery, to(server.url, SHORT_S), body)
        server.close()
        send(delivery, to(server.url, SHORT_S), body)
        until(lambda: sys.getrefcount(body) == references, "the body is let go")
    finally:
        gc.enable()


def test_a_connection_is_let_go_once_it_is_idle(
    delivery: Delivery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while others are used: a backend that is away is asked again and again."""
    with Server() as busy:
        for each in (server, busy):
            send(delivery, to(each.url))
        for _ in range(2):
            monkeypatch.setattr(module, "IDLE_S", -1.0)
            delivery.verdicts()
            monkeypatch.undo()
            send(delivery, to(busy.url))
        send(delivery, to(server.url))
        assert (server.connections, busy.connections) == (2, 1)
