"""The backend answers under the names of this machine, so that no web page can have its own name point here."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
import urllib3
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, running
from epsagon_fast.backend.hosts import Hosts

OWN = ["localhost", "LOCALHOST:1", "shop.localhost", "127.0.0.1", "127.1.2.3:8686", "[::1]", "[::1]:8686"]
FOREIGN = [
    "attacker.example",
    "attacker.example:8686",
    "localhost.attacker.example",
    "127.0.0.1.attacker.example",
    "attacker.example@127.0.0.1",
    "notlocalhost",
    "",
    ":8686",
    "[::1",
    "10.0.0.1",
]


@pytest.mark.parametrize("header", OWN)
def test_loopback_has_many_names(header: str) -> None:
    assert Hosts("127.0.0.1").hold(header)


@pytest.mark.parametrize("header", FOREIGN)
def test_no_other_name_is_this_machine_s(header: str) -> None:
    assert not Hosts("127.0.0.1").hold(header)


def test_what_it_listens_on_and_what_is_allowed_are_names_too() -> None:
    hosts = Hosts("10.0.0.1", ["Backend"])
    assert all(hosts.hold(header) for header in ("10.0.0.1:80", "backend:80", "BACKEND"))
    assert not hosts.hold("10.0.0.2")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_where_it_listens_everywhere_any_address_will_do_but_no_strange_name(host: str) -> None:
    hosts = Hosts(host)
    assert all(hosts.hold(header) for header in ("10.0.0.1:80", "[fe80::1]:80", f"{socket.gethostname()}:80"))
    assert not hosts.hold("attacker.example")


@pytest.fixture
def backend() -> Iterator[Backend]:
    with running() as started:
        yield started


@pytest.mark.parametrize(("method", "path"), [("GET", "/traces"), ("POST", "/"), ("GET", "/healthz"), ("PUT", "/no")])
def test_a_request_that_came_by_a_strange_name_is_refused(backend: Backend, method: str, path: str) -> None:
    headers = {"Host": "attacker.example\x9b31m", "Authorization": "Bearer t"}
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
        answer = client.request(method, backend.url + path, headers=headers, body=b"x" * 300_000)
    assert answer.status == 421
    assert answer.data.isascii() and b"attacker.example" in answer.data
    assert "--allow-host" in json.loads(answer.data)["error"]
    assert backend.store.counts()["traces"] == 0


def test_a_request_with_no_name_or_two_is_refused(backend: Backend) -> None:
    port = urllib3.util.parse_url(backend.url).port
    for lines in (b"GET /traces HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: attacker\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port or 0), timeout=TIMEOUT_S) as connection:
            connection.sendall(lines)
            with HTTPResponse(connection) as answer:
                answer.begin()
                assert answer.status in (400, 421)
