"""What a server gets of an answer, and how its trace ends."""

import contextlib
import functools
import gc
import io
import os
from collections import UserList
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from wsgiref.util import FileWrapper

import pytest
from naming import named
from test_wsgi import answer_of, ask, environ_of, metadata, runner, traces

import epsagon_fast as epsagon
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.producer import current
from epsagon_fast.producer.left_out import LeftOut
from epsagon_fast.producer.process import process

__all__ = ["traces"]
Traces = list[dict[str, Any]]


class Listed(list[bytes]):
    """A list of the application's own class."""


class Pair(NamedTuple):
    """A tuple on which nothing can be hung."""

    first: bytes
    second: bytes


class WrapperInC:
    """As a server's wrapper that is made in C: it takes no attributes."""

    __slots__ = ("filelike",)

    def __init__(self, filelike: Any) -> None:
        self.filelike = filelike


def returning(body: Any, *headers: tuple[str, str], status: str = "200 OK") -> Callable[..., Any]:
    """Return an application that answers with a body."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [*headers])
        return body

    return app


def kept(file: Any) -> Any:
    """Do what uWSGI's wrapper does: remember the file and return it."""
    return file


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ([b"ab", b"c"], "3"),
        ((b"ab", b"c"), "3"),
        ([], "0"),
        (b"abc", "3"),
        ({b"abc"}, "3"),
        (Pair(b"ab", b"c"), "3"),
        (object(), "0"),
        (None, "0"),
    ],
    ids=named,
)
def test_what_is_in_memory_reaches_the_server_as_it_is_and_ends_the_trace(traces: Traces, body: Any, size: str) -> None:
    assert answer_of(returning(body)) is body
    assert metadata(traces)["response_bytes"] == size
    assert "client_closed" not in metadata(traces)


def test_list_of_the_applications_own_class_tells_its_end_by_close(traces: Traces) -> None:
    body = Listed([b"ab", b"c"])
    answer = answer_of(returning(body))
    assert answer is body and not traces
    answer.close()
    assert not hasattr(body, "close")
    assert metadata(traces)["response_bytes"] == "3"


def test_body_with_a_length_keeps_it_and_its_steps_are_in_the_trace(traces: Traces) -> None:
    class Body(UserList[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            epsagon.label("steps", "seen")
            return super().__iter__()

        extra = "kept"

    answer = answer_of(returning(Body([b"ab", b"c"])))
    assert len(answer) == 2
    assert answer.extra == "kept"
    assert not hasattr(answer, "filelike")
    # A server may add up the lengths first.
    assert sum(map(len, answer)) == 3
    assert b"".join(answer) == b"abc"
    answer.close()
    assert metadata(traces)["response_bytes"] == "3"
    assert metadata(traces)["labels"] == '{"steps":"seen"}'


# Files.


@pytest.mark.parametrize("wrapper", [FileWrapper, WrapperInC, kept, WrapperInC.__call__], ids=named)
def test_file_reaches_the_server_as_its_wrapper_made_it(traces: Traces, tmp_path: Any, wrapper: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    with open(path, "rb") as file:
        own = wrapper(file) if wrapper is not WrapperInC.__call__ else WrapperInC(file)
        function = wrapper is WrapperInC.__call__
        environ = {"wsgi.file_wrapper": WrapperInC.__init__ if function else wrapper}
        answer = answer_of(returning(own), **environ)
        assert answer is own
        if hasattr(answer, "close"):
            answer.close()
            assert file.closed
    assert metadata(traces)["response_bytes"] == "4"


class Waitress:
    """As waitress's wrapper: it counts down, and is closed by the channel whatever came of it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.remain = 0

    def close(self) -> None:
        self.file.close()


@pytest.mark.parametrize(
    ("method", "left", "sent", "closed"),
    [("GET", 0, "6", None), ("GET", 2, "4", "true"), ("HEAD", 6, "0", None)],
)
def test_file_that_the_server_counts_down_says_how_much_was_sent(
    traces: Traces, method: str, left: int, sent: str, closed: str | None
) -> None:
    answer = answer_of(
        returning(Waitress(io.BytesIO(b"a file"))), **{"wsgi.file_wrapper": Waitress, "REQUEST_METHOD": method}
    )
    answer.remain = left
    answer.close()
    assert metadata(traces)["response_bytes"] == sent
    assert metadata(traces).get("client_closed") == closed


def test_file_counts_no_more_than_was_promised(traces: Traces) -> None:
    file = FileWrapper(io.BytesIO(b"a file"))
    answer_of(returning(file, ("Content-Length", "3")), **{"wsgi.file_wrapper": FileWrapper}).close()
    assert metadata(traces)["response_bytes"] == "3"


def test_file_leaves_nothing_to_the_garbage_collector(traces: Traces) -> None:
    def once() -> None:
        with open(os.devnull, "rb") as file:
            answer_of(returning(file), **{"wsgi.file_wrapper": kept}).close()

    once()
    gc.collect()
    gc.disable()
    try:
        once()
        assert gc.collect() == 0
    finally:
        gc.enable()


# Answers that are never closed.


class Closable:
    """A body with `close`, which is not called."""

    def __init__(self) -> None:
        self._pieces = iter([b"a", b"b"])

    def __iter__(self) -> "Closable":
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("body", [iter([b"a", b"b"]), UserList([b"a", b"b"])], ids=named)
def test_body_without_close_ends_the_trace_with_its_last_piece(traces: Traces, body: Any) -> None:
    answer = answer_of(returning(body))
    assert list(answer) == [b"a", b"b"]
    assert metadata(traces)["response_bytes"] == "2"
    answer.close()
    assert len(traces) == 1


def test_test_client_that_keeps_an_answer_has_its_trace(traces: Traces) -> None:
    environ = environ_of()
    del environ["SERVER_SOFTWARE"]
    answer: Any = TracingMiddleware(returning(Closable()))(environ, lambda *_: None)
    assert list(answer) == [b"a", b"b"]
    assert metadata(traces)["response_bytes"] == "2"


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_answer_that_nothing_closes_ends_when_it_is_collected(traces: Traces, taken: int) -> None:
    answer = answer_of(returning(Closable()))
    for _ in range(taken):
        next(answer, None)
    assert not traces
    del answer
    assert metadata(traces)["response_bytes"] == str(min(taken, 2))
    assert not process.open_traces


@pytest.mark.parametrize(
    "make", [lambda: Listed([b"abc"]), lambda: FileWrapper(io.BytesIO(b"abc"))], ids=["list", "file"]
)
def test_servers_own_kind_of_body_that_nothing_closes_ends_when_it_dies(
    traces: Traces, make: Callable[[], Any]
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return make()

    answer = answer_of(app, **{"wsgi.file_wrapper": FileWrapper})
    assert not traces
    del answer
    assert metadata(traces)["status_code"] == "200"


@pytest.mark.parametrize("body", [[None], iter([None]), UserList([None])], ids=named)
def test_body_of_no_bytes_is_the_servers_to_refuse(traces: Traces, body: Any) -> None:
    answer = answer_of(returning(body))
    assert list(answer) == [None]
    assert metadata(traces)["response_bytes"] == "0"


class Next:
    """Has `__next__` alone: no server can take it."""

    close: Any = None

    def __init__(self) -> None:
        self.pieces = [b"a", b"b"]

    def __next__(self) -> bytes:
        if not self.pieces:
            raise StopIteration
        return self.pieces.pop(0)


class Itself(Next):
    def __iter__(self) -> "Itself":
        return self


class Counted(Itself):
    def __len__(self) -> int:
        return len(self.pieces)


class OverAnother(Next):
    def __iter__(self) -> Iterator[bytes]:
        return iter([b"another"])


class OverNothing(Next):
    def __iter__(self) -> Any:
        return 5


class Refusing(Next):
    def __iter__(self) -> Any:
        raise ValueError("no iteration")


class ByIndex(Next):
    def __getitem__(self, index: int) -> bytes:
        return [b"by", b"index"][index]


class Never(ByIndex):
    __iter__ = None


class Length:
    def __len__(self) -> int:
        raise ValueError("no length")


class Unclosable(Itself):
    close = 5


class Failing(Itself):
    def close(self) -> None:
        raise ValueError("no close")


def failing() -> Iterator[bytes]:
    yield b"a"
    raise ValueError("no more")


async def later() -> list[bytes]:
    return []


def what_a_server_sees(app: Any) -> list[Any]:
    """What a server gets, or which error, in each step of an answer."""

    def told(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception as error:
            return type(error), str(error)

    body = app(environ_of(), lambda status, headers: lambda data: None)
    pieces, taken = told(lambda: iter(body)), list[Any]()
    return [
        pieces if isinstance(pieces, tuple) else told(lambda: taken.extend(pieces)),
        taken,
        told(body.close) if getattr(body, "close", None) is not None else None,
        told(lambda: list(body)),
        told(lambda: len(body)) if hasattr(type(body), "__len__") else None,
    ]


BODIES = [
    *(lambda: None, lambda: 5, lambda: "text", lambda: b"bytes", lambda: {b"key": 1}, lambda: int, object),
    *(Next, Itself, Counted, OverAnother, OverNothing, Refusing, ByIndex, Never, Length, Unclosable, Failing, failing),
    *(lambda: [5], lambda: iter([5]), lambda: range(2), lambda: UserList([b"a"]), lambda: Listed([b"a"]), later),
]


@pytest.mark.filterwarnings("ignore:coroutine 'later' was never awaited")
@pytest.mark.parametrize("way", ["__call__", "_answer", "_leave_out"])
@pytest.mark.parametrize("make", BODIES)
def test_server_meets_what_it_meets_without_a_middleware(traces: Traces, make: Callable[[], Any], way: str) -> None:
    """No error of an application is healed, none is added, and none comes in another step."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return make()

    traced = getattr(TracingMiddleware(app), way)
    if way == "_leave_out":
        traced = functools.partial(traced, LeftOut(None, ""))
    assert what_a_server_sees(traced) == what_a_server_sees(app)
    assert current.anywhere() is None


# What was sent.


@pytest.mark.parametrize(
    ("method", "status", "size"),
    [("HEAD", "200 OK", "0"), ("GET", "204 No Content", "0"), ("GET", "304 Not Modified", "0"), ("GET", "200 OK", "2")],
)
@pytest.mark.parametrize("kind", [list, iter])
def test_answers_without_a_body_count_none(
    traces: Traces, kind: Callable[[Any], Any], method: str, status: str, size: str
) -> None:
    app = returning(kind([b"a", b"b"]), status=status)
    assert ask(TracingMiddleware(app), REQUEST_METHOD=method) == b"ab"
    assert metadata(traces)["response_bytes"] == size


def test_server_that_takes_no_body_has_not_lost_its_client(traces: Traces) -> None:
    answer_of(returning(iter([b"a"])), REQUEST_METHOD="HEAD").close()
    assert "client_closed" not in metadata(traces)


def test_server_that_stops_at_the_promised_length_has_not_lost_its_client(traces: Traces) -> None:
    answer = answer_of(returning(iter([b"ab", b""]), ("Content-Length", "2")))
    assert next(answer) == b"ab"
    answer.close()
    assert "client_closed" not in metadata(traces)


def test_servers_own_class_for_a_client_that_left_is_known(traces: Traces) -> None:
    class ClientDisconnected(Exception):
        """As waitress's."""

    answer = answer_of(returning(iter([b"a", b"b"])))
    with pytest.raises(ClientDisconnected):
        try:
            next(answer)
            raise ClientDisconnected
        finally:
            answer.close()
    assert (runner(traces)["error_code"], metadata(traces)["client_closed"]) == (0, "true")


@pytest.mark.parametrize("kind", [iter, UserList])
def test_body_that_failed_leaves_nothing_to_the_garbage_collector(traces: Traces, kind: Callable[[Any], Any]) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ValueError

    class Failing(UserList[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            return pieces()

    def once() -> None:
        answer = answer_of(returning(pieces() if kind is iter else Failing()))
        with contextlib.suppress(ValueError):
            list(answer)
        answer.close()

    once()
    gc.collect()
    gc.disable()
    try:
        once()
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert [trace["events"][-1]["error_code"] for trace in traces] == [2, 2]
