"""What sending a trace costs, from a bare socket up to Delivery, over loopback, the server in its own process.

Each row adds a layer, so the differences say where the time goes. With an answer that takes 50 ms a plain loop sends 20
traces a second; Delivery's senders must reach the promised 500.
"""

import http.client
import logging
import socket
import ssl
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
from report import Report
from sink import sink

from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.protocol import Outcome

BODY = b'{"events":[' + b'{"id":"0123456789"},' * 500 + b"{}]}"
COUNT, ROUNDS = 300, 5
# Requests under way in one thread, to see what a sender would save that does not wait for each answer.
AT_ONCE = 6
SLOW_S, SLOW_COUNT = 0.05, 1000
PROMISED = 500
Sender = Callable[[str, int, str | None], None]


def headers(number: int) -> dict[str, str]:
    key = number.to_bytes(16, "big").hex()
    return {"Content-Type": "application/json", "Authorization": "Bearer token", "Idempotency-Key": key}


def context(ca_file: str | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=ca_file) if ca_file else None


def bare_socket(url: str, count: int, ca_file: str | None, at_once: int = 1) -> None:
    """`at_once`: so many requests are under way, each on a socket of its own."""
    with ExitStack() as stack:
        tls = context(ca_file)
        connections = [stack.enter_context(connected(url, tls)) for _ in range(at_once)]
        for first in range(0, count, at_once):
            for number, connection in enumerate(connections, first):
                lines = [f"{name}: {value}\r\n" for name, value in headers(number).items()]
                head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n{''.join(lines)}\r\n"
                connection.sendall(head.encode() + BODY)
            for connection in connections:
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def connected(url: str, tls: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", urllib3.util.parse_url(url).port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection


def through_http_client(url: str, count: int, ca_file: str | None) -> None:
    address = urllib3.util.parse_url(url)
    tls = context(ca_file)
    connection: Any = http.client.HTTPConnection("localhost", address.port)
    if tls:
        connection = http.client.HTTPSConnection("localhost", address.port, context=tls)
    for number in range(count):
        connection.request("POST", "/", BODY, headers(number))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
    connection.close()


def through_urllib3(url: str, count: int, ca_file: str | None) -> None:
    with urllib3.PoolManager(ssl_context=context(ca_file)) as pool:
        for number in range(count):
            answer = pool.request("POST", url, body=BODY, headers=headers(number), retries=False, timeout=5.0)
            assert answer.status == 200


def through_delivery(url: str, count: int, ca_file: str | None) -> None:
    delivery = Delivery(log=logging.getLogger(__name__))
    destination = Destination(url, "token", 5.0, ca_file=ca_file)
    for number in range(count):
        delivery.submit([Parcel(number.to_bytes(16, "big"), destination, BODY)])
    outcomes = []
    while len(outcomes) < count:
        time.sleep(0.002)
        outcomes += [verdict.outcome for verdict in delivery.verdicts()]
    delivery.close(5.0)
    assert set(outcomes) == {Outcome.DELIVERED}


SENDERS: dict[str, Sender] = {
    "a bare socket": bare_socket,
    f"{AT_ONCE} bare sockets at once": partial(bare_socket, at_once=AT_ONCE),
    "http.client": through_http_client,
    "urllib3": through_urllib3,
    "Delivery": through_delivery,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a certificate for localhost and its key; beside it ca.pem."""
    import trustme

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder / "server.pem"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_where_the_time_goes(report: Report, certificate: Path, scheme: str) -> None:
    is_tls = scheme == "https"
    ca_file = str(certificate.with_name("ca.pem")) if is_tls else None
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SENDERS}
    with sink(certificate=str(certificate) if is_tls else "") as backend:
        for number in range(ROUNDS + 1):
            for name, send in SENDERS.items():
                found = measured(lambda send=send: send(backend.url, COUNT, ca_file))
                if number:
                    taken[name].append(found)
    medians = {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in taken.items()}
    _, usual = medians["urllib3"]
    rows = [[name, 1 / wall, cpu * 1e6, cpu / usual] for name, (wall, cpu) in medians.items()]
    note = (
        "The bare socket is the kernel's part, what the next rows add is http.client's, urllib3's and ours. A "
        f"processor that does nothing else sends at most {1 / usual:.0f} traces a second through urllib3."
    )
    columns = ("", "traces/s", "CPU µs", "/ urllib3")
    report.table("delivery", f"A POST of {len(BODY) // 1000} KB over {scheme}, loopback", columns, rows, note)


def measured(send: Callable[[], None]) -> tuple[float, float]:
    """Return wall and processor time of a POST, in seconds."""
    used, start = time.process_time(), time.perf_counter()
    send()
    return (time.perf_counter() - start) / COUNT, (time.process_time() - used) / COUNT


def test_a_slow_backend(report: Report) -> None:
    with sink(delay_s=SLOW_S) as backend:
        rows = []
        for name, count in (("urllib3", 40), ("Delivery", SLOW_COUNT)):
            start = time.perf_counter()
            SENDERS[name](backend.url, count, None)
            rows.append([name, count / (time.perf_counter() - start)])
    title = f"A backend that answers after {SLOW_S * 1000:.0f} ms"
    report.table("delivery", title, ("", "traces/s"), rows)
    rate = rows[-1][1]
    report.target(f"{PROMISED} traces/s at 50 ms a round trip", f"{rate:.0f}/s", rate >= PROMISED)
