"""What the collector asks of a format: one that lets traces share a request takes the place of a real one."""

import logging
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from places import until
from records import CONFIG, RING, added, closed, event, opened, own_runner
from servers import Request, Server, status

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.formats import FittedTrace, Post
from epsagon_fast.collector.formats.choice import FORMATS, format_for
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.collector.sending.outbox.file import OutboxFile
from epsagon_fast.collector.sending.outbox.outbox import Outbox
from epsagon_fast.collector.sending.verdict import Verdict
from epsagon_fast.protocol import Outcome

HERE = Destination("http://here/", "token", 1.0)
ENVELOPE_BYTES = 100


class Lines:
    """A trace is a line: its runner's place and its events. Three of them may share a request."""

    name = "lines"
    content_type = "text/plain"
    collect_s = 1000.0
    transient = frozenset({503})

    @property
    def size_bytes(self) -> int:
        return ENVELOPE_BYTES

    def envelope(self, config: Mapping[str, Any], platform: str) -> "Lines":
        return self

    def body(self, trace: FittedTrace) -> bytes:
        return b" ".join((str(trace.runner_place).encode(), *trace.events))

    def shared(self, waiting: Iterable[Any]) -> int:
        return min(3, len(list(waiting)))

    def post(self, parcels: Sequence[Any]) -> Post:
        url = parcels[0].destination.url.removeprefix("lines+")
        return Post(url, {"Content-Type": self.content_type}, b"\n".join(parcel.body for parcel in parcels))

    def refusal(self, answer: bytes, url: str) -> str | None:
        return answer.decode() or None

    def without_secret(self, body: bytes, destination: Destination) -> tuple[int | None, bytes]:
        return None, body

    def with_secret(self, body: bytes, secret_at: int, destination: Destination) -> bytes:
        raise AssertionError("it had no secret")


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "lines", Lines())


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery(log=logging.getLogger("test.formats"), threads_max=1)
    yield made
    made.close(5.0)


def verdicts(delivery: Delivery, count: int) -> list[Verdict]:
    heard: list[Verdict] = []

    def all_came() -> bool:
        heard.extend(delivery.verdicts())
        return len(heard) == count

    until(all_came, f"{count} verdicts come")
    return heard


def finished(url: str, limit_bytes: int, *events: bytes) -> bytes | None:
    assembly = Assembly()
    config = {**CONFIG, "collector_url": url, "max_trace_size_bytes": limit_bytes}
    for each in (opened(own_runner(), **config), *map(added, events), closed()):
        assembly.feed(RING, each, 0.0)
    (only,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
    return body.build(only).data


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://here", "epsagon"),
        ("https://here/a+b", "epsagon"),
        ("lines+http://here", "lines"),
        ("Lines+HTTPS://here", "lines"),
        # These cannot be sent to, which sending says.
        ("unknown+http://here", "epsagon"),
        ("no url", "epsagon"),
    ],
)
def test_a_destinations_url_chooses_its_format(url: str, name: str) -> None:
    assert format_for(HERE._replace(url=url)).name == name


def test_a_trace_is_trimmed_to_its_limit_with_the_envelope_of_its_format() -> None:
    url, one = "lines+http://here", event(1)
    whole = finished(url, 65536, one)
    assert whole is not None
    place, runner = whole.split(b" ", 1)[0], whole[len(b"1 ") + len(one) + 1 :]
    assert (place, whole) == (b"1", b" ".join((b"1", one, runner)))
    room_bytes = ENVELOPE_BYTES + len(one) + len(b",") + len(runner)
    assert finished(url, room_bytes, one) == whole
    less = finished(url, room_bytes - 1, one)
    assert less is not None
    assert one not in less


def test_traces_of_one_request_get_one_verdict(delivery: Delivery) -> None:
    with Server(status(500)) as server:
        here = HERE._replace(url="lines+" + server.url)
        delivery.submit([Parcel(each * 16, here, each) for each in (b"a", b"b", b"c")])
        [verdict] = verdicts(delivery, 1)
        assert [request.body for request in server.requests] == [b"a\nb\nc"]
    assert verdict.trace_ids == [b"a" * 16, b"b" * 16, b"c" * 16]
    # This format's backend means it.
    assert (str(verdict.outcome), verdict.retry) == ("REJECTED (500)", False)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [*((code, "STORED") for code in (429, 502, 503, 504)), *((code, "REJECTED") for code in (400, 408, 413, 500))],
)
def test_otlp_has_a_list_of_its_own_of_what_may_pass(delivery: Delivery, code: int, outcome: str) -> None:
    with Server(status(code, {"Retry-After": "7"})) as server:
        here = HERE._replace(url="otlp+" + server.url)
        delivery.submit([Parcel(b"a" * 16, here, b"{}")])
        [verdict] = verdicts(delivery, 1)
    assert (str(verdict.outcome), verdict.retry) == (f"{outcome} ({code})", outcome == "STORED")
    assert verdict.retry_after_s == (7.0 if verdict.retry else None)


def test_a_friendly_answer_may_say_that_nothing_was_taken(delivery: Delivery) -> None:
    with Server(status(200, body=b"unread")) as server:
        delivery.submit([Parcel(b"a" * 16, HERE._replace(url="lines+" + server.url), b"x")])
        delivery.submit([Parcel(b"b" * 16, HERE._replace(url=server.url), b"x")])
        heard = {verdict.trace_ids[0][:1]: verdict.outcome for verdict in verdicts(delivery, 2)}
    assert (heard[b"a"], heard[b"a"].reason) == (Outcome.REJECTED, "unread")
    assert heard[b"b"] == Outcome.DELIVERED


def test_what_a_backend_says_about_a_refusal_is_logged_once_without_secrets(
    delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    said = b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old for key-1 of token-1"}}'
    with Server(status(200, body=said)) as server:
        here = HERE._replace(url="otlp+" + server.url, token="token-1", headers='{"api-key":"key-1"}')
        for number in range(3):
            delivery.submit([Parcel(bytes([number]) * 16, here, b"{}")])
        heard = verdicts(delivery, 3)
    # Counted by what the backend said: without secrets, and without digits, which may differ each time.
    assert [str(verdict.outcome) for verdict in heard] == ["REJECTED (partial_success_too_old_for_of)"] * 3
    [line] = [record.getMessage() for record in caplog.records]
    assert "too old for **** of ****" in line


def test_the_outbox_keeps_what_the_format_says_is_no_secret(tmp_path: Path) -> None:
    file = OutboxFile(str(tmp_path), b"us")
    now = time.time()
    data = EPSAGON.envelope({"app_name": "a", "token": "token"}, "p").around([], [])
    for number, url in enumerate(("http://here/", "lines+http://here/")):
        to = HERE._replace(url=url)
        file.put([Parcel(bytes([number]) * 16, to, data)], now)
        assert [parcel.body for parcel in file.take(to, 1, now)] == [data]
    stored = [body for (body,) in file._db.execute("SELECT body FROM traces ORDER BY number")]
    assert [b'"token":"token"' in body for body in stored] == [False, True]
    file.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"{}", None),
        (b"", None),
        (b'{"trace_id":"partialSuccess"}', None),
        (b'["partialSuccess"]', None),
        (b'{"partialSuccess"', None),
        (b'{"partialSuccess":{}}', "otlp_endpoint"),
        (b'{"partialSuccess":{"rejectedSpans":"0"}}', "otlp_endpoint"),
    ],
)
def test_an_otlp_server_does_not_take_our_own_form(answer: bytes, reason: str | None) -> None:
    assert EPSAGON.refusal(answer, "http://here:8686/in") == reason


@pytest.mark.parametrize("url", ["http://here:4318", "https://here/v1/traces"])
def test_where_otlp_is_at_home_an_empty_answer_is_its_answer(url: str) -> None:
    answers = (b"{}", b" {}\n", b"", b'{"id":1}', b"[]")
    assert [EPSAGON.refusal(answer, url) for answer in answers] == ["otlp_endpoint", "otlp_endpoint", None, None, None]


def all_at_once(delivery: Delivery, outbox: Outbox, parcels: Sequence[Parcel]) -> list[str]:
    """Send these; return the outcomes in their order."""
    sending, settled = Dispatch(delivery, outbox), dict[bytes, str]()
    for parcel in parcels:
        sending.add(parcel)

    def all_settled() -> bool:
        settled.update({each.trace_id: str(each.outcome) for each in sending.step(time.monotonic())})
        return len(settled) == len(parcels)

    until(all_settled, "each trace is settled")
    sending.finish(0.0, 1.0, 5.0)
    return [settled[parcel.trace_id] for parcel in parcels]


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(str(tmp_path), b"us", log=logging.getLogger("test.formats"))


def test_a_request_that_is_too_large_is_halved_until_one_trace_is_left(delivery: Delivery, outbox: Outbox) -> None:
    def narrow(request: Request, connection: socket.socket) -> bool:
        code = 413 if b"\n" in request.body or b"large" in request.body else 204
        return status(code, body=b"")(request, connection)

    with Server(narrow) as server:
        here = HERE._replace(url="lines+" + server.url)
        outcomes = all_at_once(
            delivery, outbox, [Parcel(each * 4, here, each * 4) for each in (b"aaaa", b"large", b"cccc")]
        )
        assert [len(request.body.split()) for request in server.requests] == [3, 1, 1, 1]
    assert outcomes == ["DELIVERED", "REJECTED (413)", "DELIVERED"]


def test_a_collector_s_way_to_say_too_large_loses_no_trace(
    delivery: Delivery, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(request: Request, connection: socket.socket) -> bool:
        answer = b'{"code":3, "message":"http: request body too large"}'
        is_small = len(request.body) < 40
        return status(200 if is_small else 400, body=b"" if is_small else answer)(request, connection)

    monkeypatch.setattr(Lines, "shared", lambda _, waiting: len(list(waiting)))
    with Server(small) as server:
        here = HERE._replace(url="lines+" + server.url)
        parcels = [Parcel(number.to_bytes(16), here, b"x" * 9) for number in range(300)]
        assert all_at_once(delivery, outbox, parcels) == ["DELIVERED"] * 300


@pytest.mark.parametrize("code", [400, 422])
def test_a_request_in_which_one_trace_is_wrong_loses_that_one(delivery: Delivery, outbox: Outbox, code: int) -> None:
    def strict(request: Request, connection: socket.socket) -> bool:
        return status(code if b"wrong" in request.body else 204, body=b"")(request, connection)

    with Server(strict) as server:
        here = HERE._replace(url="lines+" + server.url)
        parcels = [Parcel(each * 4, here, each * 4) for each in (b"aaaa", b"wrong", b"cccc")]
        outcomes = all_at_once(delivery, outbox, parcels)
        assert sorted(len(request.body.split()) for request in server.requests) == [1, 1, 1, 2, 3]
    assert outcomes == ["DELIVERED", f"REJECTED ({code})", "DELIVERED"]


@pytest.mark.parametrize("answer", [0, -1, 99, None])
def test_a_request_has_traces_of_one_destination_whatever_the_format_answers(
    delivery: Delivery, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    monkeypatch.setattr(Lines, "shared", lambda *_: answer)
    with Server(status(204, body=b"")) as server:
        here = HERE._replace(url="lines+" + server.url)
        there = here._replace(token="another")
        parcels = [Parcel(each * 16, to, each) for each, to in ((b"a", here), (b"b", here), (b"c", there))]
        assert all_at_once(delivery, outbox, parcels) == ["DELIVERED"] * 3
        assert [request.body for request in server.requests] == (
            [b"a\nb", b"c"] if answer == 99 else [b"a", b"b", b"c"]
        )


def test_a_format_that_fails_ends_no_collector(
    delivery: Delivery, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ValueError("no such body")

    monkeypatch.setattr(Lines, "shared", broken)
    with Server(status(204, body=b"")) as server:
        here = HERE._replace(url="lines+" + server.url)
        parcels = [Parcel(each * 16, here, each) for each in (b"a", b"b")]
        assert all_at_once(delivery, outbox, parcels) == ["DELIVERED"] * 2
