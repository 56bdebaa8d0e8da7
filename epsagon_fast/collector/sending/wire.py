"""HTTP/1.1 on one connection: writes a request, and reads of its answer what decides about the traces (RFC 9112).

http.client builds a message object of each answer's headers, which takes longer than all else that a POST costs us.
Here a header is looked for when it is asked for, and a body is read up to a bound.
"""

import re
import ssl
from collections.abc import Mapping
from functools import lru_cache

from epsagon_fast.collector.sending.answer import Failure, Response
from epsagon_fast.digits import number
from epsagon_fast.hints import Protocol
from epsagon_fast.rows import NamedTuple

# An answer is drained up to here, so that its connection can be used again; beyond it a new connection is cheaper.
MAX_ANSWER_BYTES = 64 * 1024
# The head with all interim answers before it, and once more what stands between a body's chunks and behind them.
MAX_HEAD_BYTES = 64 * 1024
_RECEIVED_BYTES = 16 * 1024
# Answers up to this size are looked through once.
_REMEMBERED_BYTES = 2 * 1024
# A smaller body goes with its head in one call, so in one packet. A larger one would be copied for that.
_JOINED_BYTES = 64 * 1024

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PROTOCOL = b"HTTP/1."
_STATUS = re.compile(_PROTOCOL + rb"([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?\r?\n")
# A line that begins with a space goes on with the one before (RFC 9112, 5.2).
_FOLD = re.compile(rb"\r?\n[ \t]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,15}")
# Where a body ends if no length says it.
_CHUNKED, _TO_THE_END = -1, -2
_SWITCHING, _NO_CONTENT, _NOT_MODIFIED = 101, 204, 304
# With TLS each failure to write looks like an end without a goodbye.
_REFUSED_TO_READ = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
# What we say ourselves of a body.
_OURS = frozenset({"content-length", "transfer-encoding"})


class Duplex(Protocol):
    """A socket, with or without TLS. Each call is bounded by the request's deadline."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...


class HeadersOf:
    """The headers of an answer."""

    def __init__(self, head: bytes) -> None:
        self._head = _FOLD.sub(b" ", head)
        self._lower = self._head.lower()

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a header, the first one of its name."""
        at = self._lower.find(b"\n%b:" % name.lower().encode())
        if at < 0:
            return default
        start = at + len(name) + 2
        return self._head[start : self._head.find(b"\n", start)].strip().decode("latin-1")

    def listed(self, sought: bytes) -> list[bytes]:
        """Return the values of all headers of a name, as a list of them in one header too, in lower case.

        sought: the beginning of its line, as in b"\\nconnection:".
        """
        found: list[bytes] = []
        at = self._lower.find(sought)
        while at >= 0:
            start = at + len(sought)
            end = self._lower.find(b"\n", start)
            found += [each.strip() for each in self._lower[start:end].split(b",")]
            at = self._lower.find(sought, end)
        return found


class Answer(NamedTuple):
    """An answer, and whether its connection can be used again."""

    response: Response
    reusable: bool


class Head:
    """The head of POSTs that differ in their length and in their key."""

    def __init__(self, target: str, host: str, headers: Mapping[str, str]) -> None:
        """Write what they share. Raises Failure if a header cannot be sent."""
        given = {name.lower() for name in headers}
        shared = {name: value for name, value in headers.items() if name.lower() not in _OURS}
        if "host" not in given:
            shared = {"Host": host, **shared}
        if "accept-encoding" not in given:
            shared["Accept-Encoding"] = "identity"
        self._takes_key = "idempotency-key" not in given
        self._shared = f"POST {target} HTTP/1.1\r\n{_written(shared)}"

    def of(self, body_bytes: int, key: str = "") -> bytes:
        """Return the head of one POST. `key`: its idempotency key, which counts unless the headers have one."""
        own = f"Idempotency-Key: {key}\r\n" if key and self._takes_key else ""
        return f"{self._shared}{own}Content-Length: {body_bytes}\r\n\r\n".encode("latin-1")


def _written(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not all(map(_NAME.fullmatch, headers)) or any(map(_CONTROL.search, headers.values())):
        # The token is the only text in them that nearly every user chooses.
        raise Failure("bad_token", "it or another header holds a character that no header can")
    try:
        lines.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Failure("bad_token", "it or another header is no latin-1") from error
    return lines


def ask(connection: Duplex, head: bytes, body: bytes) -> Answer:
    """Send a request and read its answer. Raises OSError if there is none."""
    try:
        if len(body) <= _JOINED_BYTES:
            connection.sendall(head + body)
        else:
            connection.sendall(head)
            connection.sendall(body)
    except _REFUSED_TO_READ:
        # A server may refuse a large body before it has read it. If it said nothing, reading fails too.
        pass
    data = connection.recv(_RECEIVED_BYTES)
    known = _whole(data) if len(data) <= _REMEMBERED_BYTES else None
    return known or _read(connection, data)


# A server says the same again and again, but for the date.
@lru_cache(64)
def _whole(said: bytes) -> Answer | None:
    """Return the answer if this is one, whole, and its connection is kept."""
    try:
        answer = _read(_NoMore(), said)
    except ConnectionError:
        return None
    return answer if answer.reusable else None


class _NoMore:
    """A connection that has nothing more to say."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes:
        return b""


def _read(connection: Duplex, data: bytes) -> Answer:
    """Return an answer. `data`: its beginning."""
    end = interim_bytes = 0
    while True:
        data, end = _read_head(connection, data[end:], MAX_HEAD_BYTES - interim_bytes)
        found = _STATUS.match(data)
        if found is None:
            raise _no_answer()
        status = int(found[2])
        # An interim answer says that one comes: 100, or 103 with hints for browsers.
        if status >= 200 or status == _SWITCHING:
            break
        interim_bytes += end
    headers = HeadersOf(data[:end])
    reusable = _stays_open(headers, is_new=found[1] == b"1")
    if status < 200 or status in (_NO_CONTENT, _NOT_MODIFIED):
        return Answer(Response(status, headers, b""), reusable and len(data) == end and status >= 200)
    rest = data[end:]
    try:
        framing = _framing(headers)
        if framing == len(rest) <= MAX_ANSWER_BYTES:
            # All is here already, as nearly always.
            return Answer(Response(status, headers, rest), reusable)
        body = _Body(connection, rest)
        is_whole = body.read(framing)
    except (OSError, ValueError):
        # A body that breaks off changes nothing, because the status has decided.
        return Answer(Response(status, headers, b""), False)
    return Answer(Response(status, headers, bytes(body.data)), reusable and is_whole)


def _read_head(connection: Duplex, data: bytes, most_bytes: int) -> tuple[bytes, int]:
    """Return what came up to a head's end at least, and where that is. `data`: what had come before."""
    while (end := _head_end(data)) < 0:
        if not data.startswith(_PROTOCOL[: len(data)]):
            # A server for gRPC says something else, and then waits.
            raise _no_answer()
        if len(data) > most_bytes:
            raise _too_large()
        more = connection.recv(_RECEIVED_BYTES)
        if not more:
            raise ConnectionError("the server closed the connection without an answer")
        data += more
    if end > most_bytes:
        raise _too_large()
    return data, end


def _head_end(data: bytes) -> int:
    """Return where a head ends, behind its empty line; -1: not here. A line may end without a carriage return."""
    usual = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, usual if usual >= 0 else len(data))
    return bare + 2 if bare >= 0 else usual + 3 if usual >= 0 else -1


def _too_large() -> ConnectionError:
    return ConnectionError("the answer's head is too large")


def _no_answer() -> ConnectionError:
    # Not what it said, because that may be anything.
    return ConnectionError("what came is no HTTP answer")


def _stays_open(headers: HeadersOf, is_new: bool) -> bool:
    said = headers.listed(b"\nconnection:")
    return b"close" not in said and (is_new or b"keep-alive" in said)


def _framing(headers: HeadersOf) -> int:
    """Return a body's length, or what else says where it ends (RFC 9112, 6.3). Raises ValueError if nothing does."""
    encodings = headers.listed(b"\ntransfer-encoding:")
    if encodings:
        return _CHUNKED if encodings[-1] == b"chunked" else _TO_THE_END
    # Said several times, it must be the same.
    lengths = set(headers.listed(b"\ncontent-length:"))
    if not lengths:
        return _TO_THE_END
    length = number(lengths.pop())
    if length is None or lengths:
        raise ValueError("a length that is none")
    return length


class _Body:
    """What has come of a body, and of what follows it."""

    def __init__(self, connection: Duplex, data: bytes) -> None:
        self._connection = connection
        self._rest = data
        # How much may still come that is not the body's.
        self._lines_bytes = MAX_HEAD_BYTES
        self.data = bytearray()

    def read(self, framing: int) -> bool:
        """Read the body, up to MAX_ANSWER_BYTES. Return whether nothing is left on the connection.

        Raises OSError if it breaks off, ValueError if a chunk's length is none.
        """
        if framing == _CHUNKED:
            return self._chunks()
        if framing != _TO_THE_END:
            self._take(min(framing, MAX_ANSWER_BYTES))
            return framing <= MAX_ANSWER_BYTES and not self._rest
        # It ends with the connection.
        while len(self._rest) < MAX_ANSWER_BYTES and (more := self._connection.recv(_RECEIVED_BYTES)):
            self._rest += more
        self._take(min(len(self._rest), MAX_ANSWER_BYTES))
        return False

    def _chunks(self) -> bool:
        while size := self._chunk_size():
            if len(self.data) + size > MAX_ANSWER_BYTES:
                return False
            self._take(size)
            self._line()
        while self._line():
            # A trailer.
            pass
        return not self._rest

    def _chunk_size(self) -> int:
        said = self._line().partition(b";")[0].strip()
        if not _HEX.fullmatch(said):
            raise ValueError("a length that is none")
        return int(said, 16)

    def _take(self, size: int) -> None:
        while len(self._rest) < size:
            self._more()
        self.data += self._rest[:size]
        self._rest = self._rest[size:]

    def _line(self) -> bytes:
        while (end := self._rest.find(b"\n") + 1) == 0 and len(self._rest) <= self._lines_bytes:
            self._more()
        self._lines_bytes -= end
        if not end or self._lines_bytes < 0:
            raise ValueError("lines without an end")
        line, self._rest = self._rest[:end], self._rest[end:]
        return line.strip()

    def _more(self) -> None:
        more = self._connection.recv(_RECEIVED_BYTES)
        if not more:
            raise ConnectionError("the body breaks off")
        self._rest += more
