"""WSGI applications whose answers are compared, by path. What one returns a server may know by identity or type."""

import os
from collections.abc import Callable, Iterable, Iterator
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
answers("/indexed", Indexed)
answers("/generator", lambda: (piece for piece in (b"a", b"", b"b")))
answers("/generator/length", lambda: (piece for piece in (b"a", b"b")), ("Content-Length", "2"))
answers("/iterator", lambda: iter([b"a", b"b"]))
answers("/map", lambda: map(bytes, [b"a"]))
answers("/none", lambda: iter(()), status="204 No Content")
answers("/unchanged", list, status="304 Not Modified")
answers("/late", lambda: [b"x"], ("X-Other", "é".encode().decode("latin-1")), status="503 Service Unavailable")


@at("/write")
def write(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", PLAIN)(b"written, ")
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
    start("200 OK", PLAIN)
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
    start("200 OK", PLAIN)
    opened = open(HERE, "rb")  # noqa: SIM115 - the server closes it
    opened.seek(100)
    return wrapped(environ, opened)


@at("/file/big")
def file_big(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [*PLAIN, ("Content-Length", str(os.path.getsize(BIG_FILE)))])
    return wrapped(environ, open(BIG_FILE, "rb"), 65536)


def application(environ: Environ, start: Start) -> Any:
    """Answer with the application at the request's path."""
    return APPS[environ["PATH_INFO"]](environ, start)
