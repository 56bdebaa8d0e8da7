"""WSGI applications whose answers are compared, by path. What one returns a server may know by identity or type."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO, IOBase
from typing import Any
from wsgiref.util import FileWrapper

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], Any]]
App = Callable[[Environ, Start], Any]

PLAIN = [("Content-Type", "text/plain")]
# Made by the test.
BIG_FILE = os.environ.get("ANSWERS_BIG_FILE", "")
HERE = os.path.abspath(__file__)

APPS: dict[str, App] = {}


def at(path: str) -> Callable[[App], App]:
    """Serve an application at a path."""

    def keep(app: App) -> App:
        APPS[path] = app
        return app

    return keep


def answers(path: str, body: Callable[[], Any], *headers: tuple[str, str], status: str = "200 OK") -> None:
    """Serve what a function returns."""

    def app(environ: Environ, start: Start) -> Any:
        start(status, [*PLAIN, *headers])
        return body()

    APPS[path] = app


class Sized:
    """A body that knows how many pieces it has."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[bytes]:
        yield b"sized"


class Listed(list[bytes]):
    """A list with pieces of its own."""

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes.upper, super().__iter__())


class Indexed:
    """A body of the oldest kind: iterated by index."""

    def __getitem__(self, index: int) -> bytes:
        return [b"by", b"index"][index]


answers("/list", lambda: [b"hello"])
answers("/list/length", lambda: [b"hello"], ("Content-Length", "5"))
answers("/list/many", lambda: [b"one", b"", b"two"])
answers("/list/empty", list)
answers("/list/own", lambda: Listed([b"own"]))
answers("/tuple", lambda: (b"hello",))
answers("/sized", Sized)
answers("/indexed", Indexed)
answers("/generator", lambda: (piece for piece in (b"a", b"", b"b")))
answers("/generator/length", lambda: (piece for piece in (b"a", b"b")), ("Content-Length", "2"))
answers("/iterator", lambda: iter([b"a", b"b"]))
answers("/bytes", lambda: b"as bytes")
answers("/text", lambda: "as text")
answers("/set", lambda: {b"alone"})
answers("/dict", lambda: {b"key": b"value"})
answers("/object", object)
answers("/nothing", lambda: None)
answers("/no/bytes", lambda: [None])
answers("/map", lambda: map(bytes, [b"a"]))
answers("/none", lambda: iter(()), status="204 No Content")
answers("/unchanged", list, status="304 Not Modified")
answers("/late", lambda: [b"x"], ("X-Other", "é".encode().decode("latin-1")), status="503 Service Unavailable")


@at("/write")
def write(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [*PLAIN])(b"written, ")
    return [b"returned"]


@at("/fails")
def fails(environ: Environ, start: Start) -> list[bytes]:
    raise ValueError("before the answer")


@at("/fails/late")
def fails_late(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [*PLAIN, ("Content-Length", "9")])
    yield b"half"
    raise ValueError("in the middle")


@at("/starts/late")
def starts_late(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [*PLAIN])
    yield b"begun"


def wrapped(environ: Environ, *file: Any) -> Iterable[bytes]:
    """Return a file in the server's wrapper, if it has one."""
    wrapper: Any = environ.get("wsgi.file_wrapper", FileWrapper)
    return wrapper(*file)  # type: ignore[no-any-return]


@at("/file")
def file(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN, ("Content-Length", str(os.path.getsize(HERE)))])
    return wrapped(environ, open(HERE, "rb"))


@at("/file/unmeasured")
def file_unmeasured(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN])
    opened = open(HERE, "rb")  # noqa: SIM115 - the server closes it
    opened.seek(100)
    return wrapped(environ, opened)


@at("/file/big")
def file_big(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN, ("Content-Length", str(os.path.getsize(BIG_FILE)))])
    return wrapped(environ, open(BIG_FILE, "rb"), 65536)


@at("/file/itself")
def file_itself(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN])
    return open(HERE, "rb")


@at("/file/memory")
def file_memory(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN, ("Content-Length", "4")])
    return wrapped(environ, BytesIO(b"file"))


@at("/says/it/twice")
def says_it_twice(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [*PLAIN])
    yield b"begun"
    try:
        raise KeyError("in the middle")
    except KeyError:
        start("500 Oh", [*PLAIN], sys.exc_info())
    yield b"failed"


@at("/endless")
def endless(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [*PLAIN])
    # Sockets and servers hold a few megabytes before they notice that nothing is read.
    for _ in range(2000):
        yield b"x" * 65536


@at("/takes/over")
def takes_over(environ: Environ, start: Start) -> Any:
    """Answer on the connection itself, where the server allows it, and return what tells it that."""
    try:
        connection = environ["gunicorn.socket"]
        from gunicorn.workers.base_async import ALREADY_HANDLED
    except (KeyError, ImportError):
        start("200 OK", [*PLAIN])
        return [b"not here"]
    connection.sendall(b"HTTP/1.1 200 Taken over\r\nContent-Length: 3\r\n\r\nown")
    return ALREADY_HANDLED


@at("/is/over")
def is_over(environ: Environ, start: Start) -> Any:
    raise StopIteration


def reads(name: str, read: Callable[[Any], Any]) -> None:
    """Serve what a way of reading the request's body gives, or the class of what it raises."""

    def app(environ: Environ, start: Start) -> list[bytes]:
        try:
            outcome = repr(read(environ["wsgi.input"]))
        except Exception as error:
            outcome = type(error).__name__
        start("200 OK", [*PLAIN])
        return [outcome.encode()]

    APPS[f"/reads/{name}"] = READERS[f"/reads/{name}"] = app


def filled(stream: Any) -> Any:
    buffer = bytearray(3)
    return stream.readinto(buffer), bytes(buffer)


READERS: dict[str, App] = {}
reads("all", lambda stream: stream.read())
reads("some", lambda stream: [stream.read(2), stream.read(2), stream.read()])
reads("size", lambda stream: stream.read(size=2))
reads("line", lambda stream: stream.readline())
reads("line/size", lambda stream: stream.readline(2))
reads("lines", lambda stream: stream.readlines())
reads("loop", lambda stream: list(stream))
reads("into", filled)
reads("read1", lambda stream: stream.read1(2))
reads("peek", lambda stream: (stream.peek(2)[:2], stream.read(2)))
reads("nothing", lambda stream: None)
reads("kind", lambda stream: [isinstance(stream, kind) for kind in (IOBase, BytesIO)])
WAYS = ("read", "read1", "readinto", "readline", "readlines", "peek", "seek", "tell", "fileno", "close", "__iter__")
reads("ways", lambda stream: [hasattr(stream, way) for way in WAYS])


def application(environ: Environ, start: Start) -> Any:
    """Answer with the application at the request's path, and write down that it was asked."""
    with open(os.environ["ANSWERS_REACHED"], "ab") as reached:
        reached.write(environ["PATH_INFO"].encode() + b"\n")
    return APPS[environ["PATH_INFO"]](environ, start)
