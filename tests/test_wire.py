"""HTTP/1.1 as any server may speak it, in pieces of any size."""

import http.client
import io
import socket
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servers import HOST, TIMEOUT_S, certificate

from epsagon_fast.collector.sending import wire
from epsagon_fast.collector.sending.answer import Failure
from epsagon_fast.collector.sending.wire import MAX_ANSWER_BYTES, MAX_HEAD_BYTES, ask

OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """A connection whose server says the same whatever it is asked, `piece_bytes` at a time, and closes."""

    def __init__(self, said: bytes, piece_bytes: int = 1 << 20) -> None:
        self.sent = b""
        self._said = io.BytesIO(said)
        self._piece_bytes = piece_bytes

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        return self._said.read(min(size, self._piece_bytes))

    def makefile(self, _: str) -> io.BytesIO:
        return self._said


@pytest.mark.parametrize(
    ("said", "status", "body", "reusable"),
    [
        (OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
        (OK + b"content-length:2\r\n\r\n{}", 200, b"{}", True),
        (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", 200, b"{}", True),
        (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", 200, b"{}", False),
        (OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 408 Idle\r\n\r\n", 200, b"{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\n{}", 200, b"{}", True),
        (OK + b"\r\nto the end", 200, b"to the end", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\nX-T: 1\r\n\r\n", 200, b"{}", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nno length\r\n", 200, b"", False),
        (OK + b"Content-Length: two\r\n\r\n{}", 200, b"", False),
        (OK + b"Content-Length: 9\r\n\r\n{}", 200, b"", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
        (
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
            + OK
            + b"Content-Length: 2\r\n\r\n{}",
            200,
            b"{}",
            True,
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", 101, b"", False),
        (OK + b"Content-Length: -1\r\n\r\n{}", 200, b"", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{\r\n0\r\n\r\n", 200, b"", False),
        (OK + b"Content-Length: 1_0\r\n\r\n{}12345678", 200, b"", False),
        (OK + b"Content-Length: +2\r\n\r\n{}", 200, b"", False),
        (OK + b"Content-Length: \xb2\r\n\r\n{}", 200, b"", False),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 200, b"", False),
        (OK + b"Content-Length: 2, 3\r\n\r\n{}", 200, b"", False),
        (OK + b"Content-Length: 2\r\ncontent-length: 2,2\r\n\r\n{}", 200, b"{}", True),
        (OK + b"Content-Length:\r\n \t2\r\n\r\n{}", 200, b"{}", True),
        (OK + b"Content-Length:\r\n\r\n{}", 200, b"", False),
        (OK + b"Connection: upgrade,\r\n close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
        (OK + b"Connection: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
        (OK + b"Transfer-Encoding: gzip, Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}", True),
        (OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b"", True),
        (OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n", 200, b"2\r\n", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n", 200, b"", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n", 200, b"", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", 200, b"", False),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", 503, b"busy", True),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_an_answer_is_read_whatever_its_framing(
    said: bytes, status: int, body: bytes, reusable: bool, piece_bytes: int
) -> None:
    answer = ask(Peer(said, piece_bytes), b"head", b"body")
    assert (answer.response.status, answer.response.body) == (status, body)
    # What is said too much may not have come yet: that is noticed when the connection is taken again.
    assert answer.reusable is reusable or (piece_bytes == 1 and b"Idle" in said)


def test_an_answer_that_is_said_again_is_looked_through_once() -> None:
    said = OK + b"X-Said: again\r\nContent-Length: 2\r\n\r\n{}"
    first, again = (ask(Peer(said), b"", b"") for _ in range(2))
    assert first.response is again.response
    # More than that, a part of it, and one after which the connection closes.
    assert not ask(Peer(said + b"HTTP/1.1 408 Idle\r\n\r\n"), b"", b"").reusable
    assert ask(Peer(said[:-1]), b"", b"").response.body == b""
    assert ask(Peer(said, len(said) - 1), b"", b"").response.body == b"{}"
    large = OK + b"X-Said: %b\r\nContent-Length: 0\r\n\r\n" % bytes(9000).hex().encode()
    assert ask(Peer(large), b"", b"").response is not ask(Peer(large), b"", b"").response


def test_a_large_answer_is_not_read_to_its_end() -> None:
    for framing in (b"Content-Length: 99999999\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\nFFFFFF\r\n"):
        answer = ask(Peer(OK + framing + bytes(4 * MAX_ANSWER_BYTES)), b"", b"")
        assert (answer.response.status, answer.reusable) == (200, False)
        assert len(answer.response.body) <= MAX_ANSWER_BYTES


class Endless(Peer):
    """Says something, and then the same again and again."""

    def __init__(self, said: bytes, again: bytes) -> None:
        super().__init__(said)
        self._again = again
        self.said_bytes = 0

    def recv(self, size: int) -> bytes:
        said = super().recv(size) or self._again
        self.said_bytes += len(said)
        assert self.said_bytes < 4 * MAX_HEAD_BYTES, "it is read for ever"
        return said


@pytest.mark.parametrize("again", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\n" * 99])
def test_interim_answers_come_to_an_end(again: bytes) -> None:
    with pytest.raises(ConnectionError, match="too large"):
        ask(Endless(b"", again), b"", b"")
    # Few are waited for, as many as fit.
    few = again * ((MAX_HEAD_BYTES - 1000) // len(again))
    assert ask(Peer(few + OK + b"Content-Length: 0\r\n\r\n"), b"", b"").response.status == 200


@pytest.mark.parametrize("again", [b"X-Trailer: more\r\n", b"X", b"X: 1\r\n" * 2000])
def test_trailers_come_to_an_end(again: bytes) -> None:
    answer = ask(Endless(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", again), b"", b"")
    assert (answer.response.status, answer.reusable) == (200, False)


def test_what_a_chunk_says_of_itself_comes_to_an_end() -> None:
    chunk = b"1;" + b"a" * 8000 + b"\r\n{\r\n"
    answer = ask(Endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk), b"", b"")
    assert (answer.response.status, answer.reusable) == (200, False)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 20", b"SMTP ready\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"a" * (MAX_HEAD_BYTES + 1 << 1)]
)
def test_what_is_no_answer_is_an_error_that_quotes_nothing(said: bytes) -> None:
    with pytest.raises(ConnectionError, match=r"server|HTTP|large") as raised:
        ask(Peer(said), b"", b"")
    assert b"SMTP" not in str(raised.value).encode()


def test_a_server_for_grpc_is_noticed_by_its_first_bytes() -> None:
    class Waiting(Peer):
        def recv(self, size: int) -> bytes:
            said = super().recv(size)
            assert said, "it was asked for more"
            return said

    settings = bytes.fromhex("000006040000000000000400001000")
    with pytest.raises(ConnectionError, match="no HTTP answer"):
        ask(Waiting(settings), b"head", b"body")


names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1).filter(lambda name: name not in ("connection",))
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, blacklist_characters="\x7f\x85\xa0")).map(str.strip)


@given(st.dictionaries(names, values, max_size=4), st.binary(max_size=200), st.integers(1, 99))
@example({"retry-after": "7"}, b"", 1)
@example({"a": "b"}, b"\r\n\r\n", 3)
def test_headers_and_body_are_those_that_the_library_reads(fields: dict[str, str], body: bytes, piece: int) -> None:
    fields = {name: value for name, value in fields.items() if name not in ("content-length", "transfer-encoding")}
    lines = [f"{name.title()}: {value}".encode("latin-1") for name, value in fields.items()]
    said = b"\r\n".join([OK.strip(), *lines, b"Content-Length: %d" % len(body), b"", body])
    answer = ask(Peer(said, piece), b"", b"").response
    library = http.client.HTTPResponse(Peer(said))  # type: ignore[arg-type]
    library.begin()
    assert (answer.status, answer.body) == (library.status, library.read())
    assert [answer.headers.get(name) for name in fields] == [library.headers.get(name) for name in fields]
    assert answer.headers.get("X-Nothing", "none") == "none"


def test_a_request_says_what_it_must_and_nothing_twice() -> None:
    headers = {"Content-Type": "text/plain", "authorization": "Bearer g\u00e9", "Content-Length": "7", "HOST": "own"}
    head = wire.Head("/in?a=b", "here:80", headers)
    said = head.of(3, "k1")
    lines = said.decode("latin-1").split("\r\n")
    assert lines == [
        "POST /in?a=b HTTP/1.1",
        "Content-Type: text/plain",
        "authorization: Bearer g\u00e9",
        "HOST: own",
        "Accept-Encoding: identity",
        "Idempotency-Key: k1",
        "Content-Length: 3",
        "",
        "",
    ]
    assert head.of(4).endswith(b"\r\nAccept-Encoding: identity\r\nContent-Length: 4\r\n\r\n")
    assert b"\r\nHost: here:80\r\n" in wire.Head("/", "here:80", {}).of(0)
    assert wire.Head("/", "here", {"idempotency-key": "own"}).of(0, "k1").lower().count(b"idempotency-key: own") == 1
    assert b"k1" not in wire.Head("/", "here", {"idempotency-key": "own"}).of(0, "k1")
    peer = Peer(OK + b"Content-Length: 0\r\n\r\n")
    ask(peer, said, b"abc")
    assert peer.sent == said + b"abc"


@pytest.mark.parametrize(
    "headers", [{"A": "b\r\nC: d"}, {"A\r\nC": "d"}, {"A b": "c"}, {"": "c"}, {"A": "\u20ac"}, {"A": "\x00"}]
)
def test_a_header_that_cannot_be_sent_is_not_sent(headers: dict[str, str]) -> None:
    with pytest.raises(Failure) as raised:
        wire.Head("/", "here", headers)
    assert raised.value.reason == "bad_token"


class Refusing(Peer):
    """Answers and closes before it has taken the body."""

    def sendall(self, data: bytes) -> None:
        raise BrokenPipeError


def test_an_answer_that_comes_before_the_body_went_counts() -> None:
    answer = ask(Refusing(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), b"", bytes(1 << 20))
    assert answer.response.status == 413
    with pytest.raises(ConnectionError):
        ask(Refusing(b""), b"", b"")


def test_an_answer_that_comes_before_the_body_went_counts_with_tls_too(tmp_path: Path) -> None:
    identity = certificate(tmp_path)
    plain, other = socket.socketpair()
    plain.settimeout(TIMEOUT_S)
    other.settimeout(TIMEOUT_S)

    def refuse() -> None:
        with identity.context.wrap_socket(other, server_side=True) as server:
            server.recv(1)
            server.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    refusing = threading.Thread(target=refuse)
    refusing.start()
    context = ssl.create_default_context(cafile=identity.ca_file)
    with context.wrap_socket(plain, server_hostname=HOST) as connection:
        answer = ask(connection, b"head", bytes(1 << 22))
    refusing.join()
    assert answer.response.status == 413
