import ast
import contextlib
import ctypes
import functools
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context
from in_ring import recorded
from interrupting import at_each_step
from places import until

import epsagon_fast
from epsagon_fast.compat import lambda_wrapper
from epsagon_fast.integrations import asgi, celery, urllib3
from epsagon_fast.interrupts import is_interruption, let_pass
from epsagon_fast.producer.current import anywhere
from epsagon_fast.producer.process import process

PACKAGE = Path(epsagon_fast.__file__).parent


class Limit(Exception):
    pass


def raise_in_place(signum: int, frame: FrameType | None) -> None:
    raise Limit


class Alarm:
    def __call__(self, *arguments: Any) -> None:
        self.ring()

    def ring(self) -> None:
        raise TimeoutError("the limit has passed")

    def method(self, number: int, frame: FrameType | None) -> None:
        raise Limit("with a message")


HANDLERS: list[Callable[..., Any]] = [
    raise_in_place,
    Alarm(),
    Alarm().method,
    functools.partial(raise_in_place),
    lambda number, frame: Alarm().ring(),
]


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def ring() -> str:
    signal.raise_signal(signal.SIGALRM)
    return "not interrupted"


class Interrupted:
    def __str__(self) -> str:
        return ring()


class Broken:
    def __str__(self) -> str:
        raise Limit

    def __repr__(self) -> str:
        return str(self)


def caught(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("place", [ring, lambda: str(Interrupted()), lambda: [*map(str, [Interrupted()])]])
def test_exception_of_a_signal_handler_is_an_interruption(
    alarm: None, handler: Callable[..., Any], place: Callable[[], str]
) -> None:
    signal.signal(signal.SIGALRM, handler)
    error = caught(place)
    assert is_interruption(error)
    with pytest.raises(type(error)) as raised:
        let_pass(error)
    assert raised.value is error


@pytest.mark.parametrize(
    "failure", [lambda: str(Broken()), lambda: repr(Broken()), lambda: {}["key"], lambda: next(iter(()))]
)
def test_failure_of_a_value_is_none(failure: Callable[[], Any]) -> None:
    error = caught(failure)
    assert not is_interruption(error)
    let_pass(error)


def test_exception_that_was_never_raised_is_none() -> None:
    assert not is_interruption(Limit())


def test_exception_of_another_thread_is_an_interruption_in_our_code() -> None:
    # As if it were a function of this package: what counts is where the exception appears.
    names: dict[str, Any] = {"__name__": "epsagon_fast.somewhere"}
    exec("def spin(started):\n    started.append(1)\n    while True:\n        pass", names)
    started: list[int] = []
    found: list[Exception] = []
    thread = threading.Thread(target=lambda: found.append(caught(lambda: names["spin"](started))))
    thread.start()
    until(lambda: bool(started), "the thread spins")
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Limit)) == 1
    thread.join(60)
    assert is_interruption(found[0])


# Modules whose lines run in the traced process.
GUARDED = [
    # Both sides' modules: configuration, imports and masking are looked up at a trace's opening, too.
    *(path for path in PACKAGE.glob("*.py") if path.stem != "__main__"),
    *(
        path
        for part in ("compat", "integrations", "masking", "producer", "trimming")
        for path in (PACKAGE / part).rglob("*.py")
    ),
    # The reader's run in the collector.
    *(path for path in (PACKAGE / "queue").glob("*.py") if path.stem != "reader"),
    *(PACKAGE / "config").rglob("*.py"),
]


@pytest.mark.parametrize("path", GUARDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_could_catch_an_interruption_lets_it_pass_first(path: Path) -> None:
    tree = ast.parse(path.read_text())
    caught = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is not None]
    for handler in caught:
        names = {node.id for node in ast.walk(handler.type or handler) if isinstance(node, ast.Name)}
        passes = ast.unparse(handler.body[0]).startswith("let_pass(")
        raises = any(isinstance(node, ast.Raise) and node.exc is None for node in handler.body)
        assert passes or raises or not names & {"Exception", "OSError"}, f"line {handler.lineno}"


# As plain Python, whatever was built: under another name it keeps its own definitions.
ENTERING = PACKAGE / "producer" / "entering.py"
PURE: dict[str, Any] = runpy.run_path(str(ENTERING), run_name="pure_entering")
current: ContextVar[Any] = PURE["current"]


class Work(PURE["Entered"]):  # type: ignore[misc]
    """What a block opens, closes and, if either is interrupted, ends at once."""

    def __init__(self) -> None:
        self.place: Any = SimpleNamespace(outer=None)
        self.is_open = False
        self.is_begun = False

    def open(self) -> "Work":
        self.is_begun = True
        return self

    def close(self, error: BaseException | None) -> None:
        self.is_begun = False

    def cut_off(self) -> None:
        self.is_begun = False


class Tracer(PURE["Started"]):  # type: ignore[misc]
    """What is started, stopped and, if either is interrupted, abandoned."""

    def __init__(self, work: Work) -> None:
        self.start, self.send_stop_signal, self.abandon = work.open, lambda: work.close(None), work.cut_off


class Several(PURE["Blocks"]):  # type: ignore[misc]
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.new_block = lambda: work


BLOCKS: dict[str, Callable[[Work], AbstractContextManager[Any]]] = {
    "Entered": lambda work: work,
    "Blocks": Several,
    "Started": Tracer,
    "Unrecorded": lambda work: PURE["Unrecorded"](work.place, None),
    "Within": lambda work: PURE["Within"](work.place),
    "Inside": lambda work: PURE["Inside"](work.place),
    "Opened": lambda work: PURE["Opened"](work),
}


def interrupted(call: Callable[[], object], number: int, name: str) -> tuple[bool, bool]:
    """Call a function, and raise where a signal's handler would be called as the `number`th time in entering.py.

    That is where a function begins and where one of C's has returned. Return whether there is such a place, and whether
    it is the beginning of the `__exit__` of the class with this name, which it cannot guard in Python.
    """
    seen, is_unguarded = 0, False

    def step(frame: FrameType, event: str, _: object) -> None:
        nonlocal seen, is_unguarded
        if frame.f_code.co_filename == str(ENTERING) and event in ("call", "c_return"):
            seen += 1
            if seen == number:
                # The beginning of `closed` is the end of a body, whose __del__ ends it.
                is_unguarded = event == "call" and frame.f_code.co_qualname in (
                    f"{name}.__exit__",
                    "closed",
                    "answered",
                )
                raise Limit

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        call()
    except Limit:
        pass
    finally:
        sys.setprofile(before)
    return seen >= number, is_unguarded


def called(work: Work) -> None:
    PURE["called_at"](work.place, work.close, None)


def called_with(work: Work) -> None:
    PURE["called_with"](current, work.place, work.close, None)


def answered(work: Work) -> None:
    request = Answer(work)
    PURE["answered"](request, lambda *_: work.open(), lambda *_: None, {}, lambda *_: work.close(None))


def closed(work: Work) -> None:
    work.open()
    PURE["closed"](Answer(work), lambda: None, None)


class Answer(SimpleNamespace):
    """A request of which `work` is the trace."""

    def __init__(self, work: Work) -> None:
        super().__init__(place=work.place, start_response=None, abandon=work.cut_off)
        self.end = self.application_fails = work.close


CALLS: dict[str, Callable[[Work], None]] = {
    "called_at": called,
    "called_with": called_with,
    "answered": answered,
    "closed": closed,
}


def entered(name: str, work: Work) -> None:
    with BLOCKS[name](work) as block:
        assert work.is_begun or current.get() is work.place
        if name == "Opened":
            # As a generator's step.
            with block.inside:
                assert current.get() is work.place


@pytest.mark.parametrize("name", [*BLOCKS, *CALLS])
def test_block_that_is_interrupted_in_plain_python_leaves_nothing_open_or_current(name: str) -> None:
    run = CALLS.get(name) or functools.partial(entered, name)
    current.set(None)
    for number in count(1):
        work = Work()
        is_interrupted, is_unguarded = interrupted(functools.partial(run, work), number, name)
        assert is_unguarded or not (work.is_begun or current.get()), number
        current.set(None)
        if not is_interrupted:
            break
    assert number >= 3


async def serving(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def channel(*_: Any) -> Any:
    return {"type": "http.request"}


def served() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"h.example")]}
    app = asgi.TracingMiddleware(serving)
    with contextlib.suppress(StopIteration):
        app(scope, channel, channel).send(None)


@epsagon_fast.trace
def function() -> None:
    epsagon_fast.label("k", 1)


@epsagon_fast.trace
def generator() -> Iterator[int]:
    yield 1


def asked() -> None:
    pool = SimpleNamespace(host="h.example", port=80, headers={})
    with epsagon_fast.trace("work"):
        urllib3._traced(lambda *_: SimpleNamespace(status=200, headers={}))(pool, "GET", "/")


def revoked() -> None:
    task = SimpleNamespace(name="work", time_limit=None)
    celery._task_is_revoked(task, Context(id="1"), terminated=False, expired=True)


ENTRIES: dict[str, Callable[[], object]] = {
    "an ASGI request": served,
    "a function": function,
    "a generator": lambda: [*generator()],
    "a request that is sent": asked,
    "a revoked task": revoked,
    "a Lambda": lambda: lambda_wrapper(lambda event, context: {})({}, SimpleNamespace()),
}


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("entry", ENTRIES)
def test_interruption_leaves_no_trace_open_and_nothing_current(
    untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str, values: bool
) -> None:
    monkeypatch.setattr(urllib3, "_ignored_hosts", frozenset())
    with recorded(monkeypatch, tmp_path) as read:
        epsagon_fast.init(metadata_only=not values)
        ENTRIES[entry]()
        for place in at_each_step(ENTRIES[entry]):
            assert anywhere() is None, place
            assert urllib3._asking.get() is celery._running.get() is None, place
            assert not process.open_traces, place
            read()
