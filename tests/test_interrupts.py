import ast
import ctypes
import functools
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from places import until

import epsagon_fast
from epsagon_fast.interrupts import is_interruption, let_pass

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
    *(PACKAGE / "producer").rglob("*.py"),
    *(PACKAGE / "integrations").rglob("*.py"),
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


def raising_in_line(number: int, lines: list[int]) -> Callable[..., Any]:
    """Return a function for sys.settrace that raises in the line of entering.py that comes as the `number`th."""

    def step(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != str(ENTERING):
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == number:
                raise Limit
        return step

    return step


def test_interrupted_call_of_which_nothing_is_recorded_leaves_the_context_as_it_was() -> None:
    pure = runpy.run_path(str(ENTERING), run_name="pure_entering")
    current, kind, nowhere = pure["current"], pure["Unrecorded"], object()
    for number in count(1):
        block, lines, before = kind(nowhere, None), [], sys.gettrace()
        sys.settrace(raising_in_line(number, lines))
        try:
            with block:
                assert current.get() is nowhere
        except Limit:
            pass
        finally:
            sys.settrace(before)
        # The line of `try`, which comes first in an __exit__, is not guarded in plain Python.
        if lines[-1] == kind.__exit__.__code__.co_firstlineno + 1:
            current.set(None)
        assert current.get() is None, lines
        if len(lines) < number:
            break
    assert number > 4
