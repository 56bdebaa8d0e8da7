import contextlib
import copy
import hashlib
import http.client
import json
import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from hypothesis import given
from places import give_away
from strategies import damaged_text
from vectors import traces
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, Store, running, server
from epsagon_fast.backend.answers import MAX_BODY_BYTES
from epsagon_fast.backend.api import MAX_PAGE_TRACES
from epsagon_fast.backend.shape import NotATrace, summarize

TOKEN = {"Authorization": "Bearer any-token"}

EXCEPTION = {"type": "KeyError", "message": "'a'", "traceback": "", "time": 1.5, "additional_data": {"k": "v"}}
EVENT = {
    "id": "e1",
    "start_time": 1700000000.25,
    "resource": {"name": "checkout", "type": "http", "operation": "POST", "metadata": {"a": "b"}},
    "origin": "runner",
    "duration": 1,
    "error_code": 2,
    "exception": EXCEPTION,
}
TRACE = {
    "app_name": "shop",
    "token": "t",
    "events": [EVENT],
    "exceptions": [EXCEPTION],
    "version": "1",
    "platform": "python 3.11.7",
}


def encoded(**changes: Any) -> bytes:
    return json.dumps({**TRACE, **changes}, separators=(",", ":")).encode()


def of_size(size_bytes: int) -> bytes:
    return encoded(app_name="x" * (size_bytes - len(encoded(app_name=""))))


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with running(database=str(tmp_path / "backend.sqlite")) as backend:
        yield backend


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S, maxsize=16, block=True) as client:
        yield client


class Asking:
    """Requests to one backend."""

    def __init__(self, client: urllib3.PoolManager, url: str) -> None:
        self._client = client
        self.url = url

    def __call__(self, method: str, path: str = "/", **options: Any) -> urllib3.BaseHTTPResponse:
        return self._client.request(method, self.url + path, **options)

    def post(self, body: Any = b"", key: str | None = None, **options: Any) -> urllib3.BaseHTTPResponse:
        headers = TOKEN if key is None else {**TOKEN, "Idempotency-Key": key}
        return self("POST", "/", body=body, **{"headers": headers, **options})

    def counts(self) -> tuple[int, int, int]:
        health = self("GET", "/healthz").json()
        assert health["status"] == "ok"
        return health["traces"], health["duplicates"], health["bytes"]


@pytest.fixture
def ask(client: urllib3.PoolManager, backend: Backend) -> Asking:
    return Asking(client, backend.url)


@pytest.fixture(scope="module")
def refusing() -> Iterator[Asking]:
    """A backend that every test here only asks for what it must refuse."""
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client, running() as backend:
        ask = Asking(client, backend.url)
        yield ask
        assert ask.counts() == (0, 0, 0)


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = urllib3.util.parse_url(url)
    assert address.host and address.port
    with socket.create_connection((address.host, address.port), timeout=TIMEOUT_S) as connection:
        yield connection


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: localhost", "Authorization: Bearer t", *lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.close()
    return response.status


def test_a_trace_is_given_back_byte_for_byte(ask: Asking) -> None:
    body = b" " + encoded(app_name="naïve") + b"\n"
    answer = ask.post(body, key="a1")
    assert (answer.status, answer.json()) == (200, {"trace_id": "a1", "duplicate": False})
    found = ask("GET", "/traces/a1")
    assert (found.status, found.headers["content-type"], found.data) == (200, "application/json", body)


@pytest.mark.parametrize("case", [case for case in traces() if case.expected_body is not None], ids=str)
def test_what_epsagon_go_sent_is_a_trace(case: Any) -> None:
    summary = summarize(case.expected_body.encode())
    assert summary.app_name == case.application_name


def test_the_body_in_the_documentation_is_a_trace() -> None:
    page = (Path(__file__).parent.parent / "docs" / "backend.md").read_text()
    body = page[page.index('{"app_name"') : page.index('"python 3.11.7"}') + len('"python 3.11.7"}')]
    summary = summarize(body.encode())
    assert (summary.app_name, summary.runner, summary.error_code) == ("shop", "checkout", 2)
    assert (summary.event_count, summary.exception_count, summary.is_trimmed) == (1, 0, True)


def test_a_second_post_with_the_same_key_is_a_duplicate_whatever_its_body(ask: Asking, backend: Backend) -> None:
    first = encoded()
    ask.post(first, key="same")
    for body in (first, encoded(app_name="other")):
        answer = ask.post(body, key="same")
        assert (answer.status, answer.json()) == (200, {"trace_id": "same", "duplicate": True})
    assert list(backend.store.bodies()) == [("same", first)]
    assert ask.counts() == (1, 2, len(first))
    assert ask("GET", "/traces").json()["traces"][0]["duplicates"] == 2


def test_without_a_key_equal_bodies_are_the_same_trace(ask: Asking) -> None:
    body = encoded()
    answers = [ask.post(sent).json() for sent in (body, body, encoded(app_name="other"))]
    assert answers[0] == {"trace_id": hashlib.sha256(body).hexdigest(), "duplicate": False}
    assert [answer["duplicate"] for answer in answers] == [False, True, False]


def test_a_trace_is_found_by_any_key_it_may_have(ask: Asking) -> None:
    for key in ("a/b/../c", "?", '"quoted"', "x" * 200):
        assert ask.post(encoded(), key=key).status == 200
        assert ask("GET", f"/traces/{quote(key, safe='')}").data == encoded()


@pytest.mark.parametrize("key", ["", "two words", "é", "x" * 201])
def test_a_key_that_cannot_be_an_id_is_refused(refusing: Asking, key: str) -> None:
    answer = refusing.post(encoded(), headers={**TOKEN, "Idempotency-Key": key.encode("latin-1")})
    assert answer.status == 400 and "Idempotency-Key" in answer.json()["error"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eDp5", "any-token"])
def test_without_a_bearer_token_nothing_is_taken(refusing: Asking, header: str | None) -> None:
    answer = refusing.post(encoded(), headers={} if header is None else {"Authorization": header})
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "bearer token" in answer.json()["error"]


def test_the_scheme_of_a_token_may_be_written_in_any_case(ask: Asking) -> None:
    assert ask.post(encoded(), headers={"Authorization": "bEARER x"}).status == 200


def test_tokens_are_kept_as_hashes(ask: Asking, tmp_path: Path) -> None:
    token = "very-secret-tokà".encode()
    ask.post(encoded(), headers={"Authorization": b"Bearer " + token})
    [row] = ask("GET", "/traces").json()["traces"]
    assert row["token_sha256"] == hashlib.sha256(token).hexdigest()
    assert not any(b"very-secret" in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
        (encoded(events=[{**EVENT, "duration": float("nan")}]), "not JSON"),
        (b"[]", "trace must be an object, not an array"),
        (b"{}", "trace has no field 'app_name'"),
        (encoded(token=None), "trace.token must be a string, not null"),
        (encoded(events={}), "trace.events must be an array, not an object"),
        (encoded(events=[EVENT, 7]), "trace.events[1] must be an object, not a number"),
        (encoded(events=[{**EVENT, "error_code": True}]), "trace.events[0].error_code must be a whole number"),
        (encoded(events=[{**EVENT, "error_code": 2**31}]), "trace.events[0].error_code must be a whole number"),
        (encoded(exceptions=[{**EXCEPTION, "time": "soon"}]), "exceptions[0].time must be a number or null"),
        (encoded(exceptions=[{**EXCEPTION, "additional_data": {"k": 1}}]), "additional_data['k'] must be a string"),
    ],
)
def test_what_is_not_a_trace_is_refused_with_the_reason(refusing: Asking, body: bytes, reason: str) -> None:
    answer = refusing.post(body)
    assert answer.status == 400 and reason in answer.json()["error"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value inside."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def changed(path: tuple[Any, ...], **new: Any) -> bytes:
    """Return TRACE with another value at `path`, or none."""
    trace: Any = copy.deepcopy(TRACE)
    inside = trace
    for key in path[:-1]:
        inside = inside[key]
    inside.update({path[-1]: new["value"]}) if new else inside.pop(path[-1])
    return json.dumps(trace).encode()


FIELDS = [path for path in places(TRACE) if isinstance(path[-1], str)]
INSIDE_MAPS = [path for path in FIELDS if path[-2:-1] in (("metadata",), ("additional_data",))]
WRONG = {
    **dict.fromkeys(("start_time", "duration", "time"), (True, "soon", [], {})),
    **dict.fromkeys(("events", "exceptions"), (None, 7, "x", {}, [None])),
    **dict.fromkeys(("resource", "metadata", "additional_data"), (None, 7, "x", [], {"k": 1})),
    "exception": (True, 7, "x", [], {"k": 1}),
    "error_code": (None, True, 1.5, 2**31, "1", []),
}
NOT_TEXT: tuple[Any, ...] = (None, True, 7, [], {})


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_every_field_must_have_its_type(path: tuple[Any, ...]) -> None:
    for wrong in WRONG.get(path[-1], NOT_TEXT):
        with pytest.raises(NotATrace, match=path[-1]):
            summarize(changed(path, value=wrong))


@pytest.mark.parametrize("path", [path for path in FIELDS if path not in INSIDE_MAPS], ids=str)
def test_every_field_must_be_there(path: tuple[Any, ...]) -> None:
    with pytest.raises(NotATrace, match=f"has no field '{path[-1]}'"):
        summarize(changed(path))


@pytest.mark.parametrize("value", [None, 0, -1.5, "NaN", "-Infinity"])
def test_a_time_may_be_any_number_or_what_stands_for_one_that_is_not_finite(value: Any) -> None:
    assert summarize(encoded(events=[{**EVENT, "start_time": value, "duration": value}])).event_count == 1


def test_an_unknown_field_is_let_through() -> None:
    assert summarize(encoded(region="x", events=[{**EVENT, "tags": []}])).event_count == 1


def test_an_unknown_field_nests_no_deeper_than_what_shows_it_can_follow() -> None:
    for depth, is_taken in ((50, True), (500, False)):
        body = encoded(events=[{**EVENT, "tags": json.loads("[" * depth + "]" * depth)}])
        with contextlib.nullcontext() if is_taken else pytest.raises(NotATrace, match=r"events\[0\] nests deeper"):
            summarize(body)


def test_a_reason_repeats_no_value_and_no_long_key() -> None:
    with pytest.raises(NotATrace) as caught:
        summarize(encoded(exceptions=[{**EXCEPTION, "additional_data": {"k" * 10**5: ["secret"]}}]))
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 200


@given(damaged_text(encoded()))
def test_whatever_comes_it_is_a_trace_or_is_refused(body: bytes) -> None:
    with contextlib.suppress(NotATrace):
        assert summarize(body).event_count >= 0


def test_a_summary_says_what_is_in_a_trace(ask: Asking) -> None:
    sdk = {**EVENT, "origin": "sdk", "error_code": 0}
    trimmed = {**EVENT, "resource": {**EVENT["resource"], "metadata": {"is_trimmed": "true"}}}  # type: ignore[dict-item]
    bodies = [encoded(events=[sdk, trimmed]), encoded(events=[], exceptions=[])]
    for body in bodies:
        ask.post(body)
    without_runner, row = ask("GET", "/traces").json()["traces"]
    assert row.pop("received_at") > 1.7e9
    assert row == {
        "trace_id": hashlib.sha256(bodies[0]).hexdigest(),
        "token_sha256": hashlib.sha256(b"any-token").hexdigest(),
        "size_bytes": len(bodies[0]),
        "duplicates": 0,
        "app_name": "shop",
        "number": row["number"],
        "runner": "checkout",
        "name": "checkout",
        "type": "http",
        "started_at": 1700000000.25,
        "duration_s": 1.0,
        "status": "error",
        "error_type": "KeyError",
        "http_trace_id": None,
        "error_code": 2,
        "event_count": 2,
        "exception_count": 1,
        "is_trimmed": True,
    }
    assert (without_runner["runner"], without_runner["error_code"], without_runner["is_trimmed"]) == (None, None, False)


def test_traces_are_listed_newest_first_by_pages(ask: Asking) -> None:
    for number in range(5):
        ask.post(encoded(), key=f"t{number}")
    ask.post(encoded(), key="t0")

    def listed(query: str) -> list[str]:
        page = ask("GET", f"/traces{query}").json()
        assert page["total"] == 5
        return [row["trace_id"] for row in page["traces"]]

    assert listed("") == ["t4", "t3", "t2", "t1", "t0"]
    assert listed("?limit=2") == ["t4", "t3"]
    assert listed("?limit=2&offset=3") == ["t1", "t0"]
    assert listed(f"?limit={MAX_PAGE_TRACES}&offset={10**15}") == []


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=", "limit=ten", "limit=1.0", "limit=%201", "limit=1001", "limit=%D9%A1"),
        *("offset=-1", "offset=1e3", "offset=" + "9" * 5000, "offset=1000000000000001"),
    ],
)
def test_a_bad_number_is_refused_by_name(refusing: Asking, query: str) -> None:
    answer = refusing("GET", f"/traces?{query}")
    assert answer.status == 400 and answer.json()["error"].startswith(query.partition("=")[0])


@pytest.mark.parametrize("path", ["/traces/no-such-trace", "/traces/", "/elsewhere"])
def test_what_is_not_there_is_404(refusing: Asking, path: str) -> None:
    assert "error" in refusing("GET", path, redirect=False).json()
    assert refusing("GET", path, redirect=False).status == 404


@pytest.mark.parametrize(
    ("path", "allowed"), [("/", "GET, POST"), ("/traces", "GET"), ("/traces/x", "GET"), ("/healthz", "GET")]
)
def test_other_methods_are_refused(refusing: Asking, path: str, allowed: str) -> None:
    methods = {*allowed.split(", ")}
    for method in {"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"} - methods:
        answer = refusing(method, path, headers=TOKEN)
        assert (answer.status, {*answer.headers["allow"].split(", ")}) == (405, methods), method


def in_chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


@pytest.mark.parametrize("sent_as", [bytes, in_chunks])
def test_a_body_may_have_a_mebibyte_and_no_byte_more(ask: Asking, sent_as: Any) -> None:
    assert ask.post(sent_as(of_size(MAX_BODY_BYTES))).status == 200
    answer = ask.post(sent_as(of_size(MAX_BODY_BYTES + 1)))
    assert answer.status == 413 and str(MAX_BODY_BYTES) in answer.json()["error"]
    assert ask.counts() == (1, 0, MAX_BODY_BYTES)


def test_a_size_that_is_announced_too_large_is_refused_before_it_is_sent(backend: Backend) -> None:
    for length in (MAX_BODY_BYTES + 1, 10**18):
        with connected(backend.url) as connection:
            connection.sendall(head(f"Content-Length: {length}", "Expect: 100-continue"))
            assert status_of(connection) == 413


def test_a_length_that_is_no_number_is_refused(backend: Backend) -> None:
    for length in ("-1", "1x", "9" * 5000):
        with connected(backend.url) as connection:
            connection.sendall(head(f"Content-Length: {length}"))
            assert status_of(connection) in (400, 413)


def test_an_endless_body_is_refused_while_it_comes(ask: Asking, backend: Backend) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connected(backend.url) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(chunk)
            pytest.fail("the backend read 1000 chunks of 64 KiB and did not close the connection")
    assert ask.counts() == (0, 0, 0)


def test_a_connection_serves_on_after_refusals(backend: Backend) -> None:
    with urllib3.connection_from_url(backend.url) as one:
        for headers, body, status in (({}, encoded(), 401), (TOKEN, b"{", 400), (TOKEN, encoded(), 200)):
            assert one.request("POST", "/", body=body, headers=headers).status == status
        assert one.num_connections == 1


def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(ask: Asking, backend: Backend) -> None:
    with connected(backend.url) as connection:
        connection.sendall(head("Content-Length: 1000") + encoded()[:100])
    assert ask.post(encoded()).status == 200
    assert ask.counts()[0] == 1


def test_traces_of_many_connections_all_arrive(ask: Asking, backend: Backend) -> None:
    bodies = {f"{number:032x}": encoded(app_name=f"app {number}") for number in range(400)}
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda item: ask.post(item[1], key=item[0]), list(bodies.items()) * 2))
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.json()["duplicate"] for answer in answers) == 400
    assert dict(backend.store.bodies()) == bodies
    assert ask.counts() == (400, 400, sum(map(len, bodies.values())))


def test_a_trace_can_be_read_by_others_once_it_is_answered(ask: Asking, backend: Backend) -> None:
    ask.post(encoded(), key="a1")
    with contextlib.closing(sqlite3.connect(f"file:{backend.database}?mode=ro", uri=True)) as reader:
        assert reader.execute("SELECT trace_id, body FROM traces JOIN bodies USING (number)").fetchall() == [
            ("a1", encoded())
        ]
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_fails_is_503_and_keeps_no_half_of_a_trace(ask: Asking, backend: Backend) -> None:
    with contextlib.closing(sqlite3.connect(backend.database)) as other:
        other.execute("ALTER TABLE bodies RENAME TO elsewhere")
        answer = ask.post(encoded())
        assert answer.status == 503 and "no such table: bodies" in answer.json()["error"]
        other.execute("ALTER TABLE elsewhere RENAME TO bodies")
    assert ask.counts() == (0, 0, 0)
    assert ask.post(encoded()).json()["duplicate"] is False


def test_a_database_is_the_owners_alone_and_outlives_the_backend(client: urllib3.PoolManager, tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    for number in range(2):
        with running(database=str(path)) as backend:
            modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
            assert modes == {0o600}
            Asking(client, backend.url).post(encoded(), key=f"t{number}")
            Asking(client, backend.url).post(encoded(), key="t0")
    assert os.listdir(tmp_path) == ["kept.sqlite"]
    with Store(str(path)) as store:
        assert [trace_id for trace_id, _ in store.bodies()] == ["t0", "t1"]
        assert store.counts() == {"traces": 2, "duplicates": 2, "bytes": 2 * len(encoded())}


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    foreign, text, later = (tmp_path / name for name in ("foreign", "text", "later"))
    with contextlib.closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE traces (x)")
    with contextlib.closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version = 99")
    text.write_text("not a database" * 100)
    for file in (foreign, text, later):
        file.chmod(0o600)
    before = [file.read_bytes() for file in (foreign, text, later)]
    for file, error in ((foreign, ValueError), (text, sqlite3.DatabaseError), (later, ValueError), (tmp_path, OSError)):
        with pytest.raises(error):
            running(database=str(file))
    assert [file.read_bytes() for file in (foreign, text, later)] == before
    assert sorted(os.listdir(tmp_path)) == ["foreign", "later", "text"]


def test_a_database_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    readable, linked, beside, movable = (tmp_path / name for name in ("readable", "linked", "beside", "movable/db"))
    readable.touch(0o644)
    linked.symlink_to(tmp_path / "target")
    Path(f"{beside}-wal").symlink_to(tmp_path / "target")
    movable.parent.mkdir()
    movable.parent.chmod(0o777)
    for path, said in (
        (readable, "open to others"),
        (linked, "not a regular file"),
        (beside, "not a regular file"),
        (movable, "others can rename"),
    ):
        with pytest.raises(OSError, match=said):
            running(database=str(path))
    assert not (tmp_path / "target").exists()
    assert not movable.exists()


@pytest.mark.root
def test_a_database_that_another_user_planted_is_refused(tmp_path: Path) -> None:
    whole, beside = tmp_path / "whole", tmp_path / "beside"
    for path, planted in ((whole, whole), (beside, Path(f"{beside}-wal"))):
        planted.touch(0o600)
        give_away(planted)
        with pytest.raises(OSError, match="belongs to user"):
            running(database=str(path))


def test_a_port_in_use_raises_and_a_stopped_backend_frees_it() -> None:
    with running() as first:
        port = urllib3.util.parse_url(first.url).port
        assert port
        with pytest.raises(OSError, match="in use"):
            running(port=port)
    first.stop()
    with running(port=port) as second:
        assert (second.url, second.database) == (first.url, ":memory:")


def test_no_half_of_an_answer_waits_for_the_client_to_acknowledge_the_other() -> None:
    # 44 ms a request on loopback. Accepted connections inherit it from the listening socket.
    with server.listen() as listener, connected(server.url_of(listener)), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_stop_leaves_no_thread_and_no_descriptor(client: urllib3.PoolManager, tmp_path: Path) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        with running(database=str(tmp_path / "db")) as backend:
            assert Asking(client, backend.url).post(encoded()).status == 200
    client.clear()
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == (threads, descriptors)


def test_stop_does_not_wait_for_a_client_that_sends_no_more(
    client: urllib3.PoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LAST_REQUESTS_S", 1)
    with running() as backend, connected(backend.url) as connection:
        connection.sendall(head("Content-Length: 1000") + b"{")
        # Answered after the half request was read, since one loop serves both in turn.
        assert Asking(client, backend.url)("GET", "/healthz").status == 200
        backend.stop()
        with contextlib.suppress(ConnectionError):
            while connection.recv(1000):
                pass


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_the_url_is_one_that_a_client_here_can_use(client: urllib3.PoolManager, host: str, url: str) -> None:
    with running(host) as backend:
        assert backend.url.startswith(url)
        assert Asking(client, backend.url).counts() == (0, 0, 0)
