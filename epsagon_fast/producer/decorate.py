"""Decorates functions so that each call is traced: plain functions, coroutines, generators, asynchronous generators.

A generator's trace is current only while the generator's body runs, and not in the code that consumes it. A trace that
the body itself made current, such as a `with trace(new=True)` around a yield, is current again at its next step.
"""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

from epsagon_fast.hints import Any, Protocol, TypeVar, cast
from epsagon_fast.pages import see

from . import arguments
from .entering import Opened

F = TypeVar("F", bound=Callable[..., Any])


class Keeping(Protocol):
    """The part of a tracer that this module needs."""

    @property
    def keeps_values(self) -> bool: ...


class CallBlock(Protocol):
    """The block of one call: the part of scope.Block that this module needs. It is false if it would do nothing."""

    def open(self) -> Keeping: ...
    def close(self, error: BaseException | None) -> None: ...
    def cut_off(self) -> None: ...
    def note(self, key: str, value: Any) -> None: ...
    def __enter__(self) -> Keeping: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None: ...


def decorated(function: F, new_block: Callable[[], CallBlock]) -> F:
    """Return a function of the same kind that runs each call in a block of its own."""
    if isinstance(function, (staticmethod, classmethod)):
        # People easily mistake the order of two decorators. A staticmethod in a wrapper would get wrong arguments.
        return cast(F, type(function)(decorated(function.__func__, new_block)))
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"trace decorates functions, not {function!r}{see('tracing')}")
    return in_block(function, new_block)


def in_block(function: F, new_block: Callable[[], CallBlock]) -> F:
    """Do what `decorated` does for anything that can be called."""
    wrapper = _wrap_of(function)(function, new_block, arguments.CallNotes(function))
    return cast(F, functools.wraps(function)(wrapper))


def _wrap_of(function: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
    while isinstance(function, functools.partial):
        function = function.func
    # An object that is no function is called through its class's __call__, which may be a coroutine.
    is_function = type(function) is types.FunctionType
    for called in (function,) if is_function else (function, inspect.getattr_static(type(function), "__call__")):
        if inspect.isasyncgenfunction(called):
            return _async_generator
        if inspect.isgeneratorfunction(called):
            return _awaitable_generator if _is_awaitable(called) else _generator
        if inspect.iscoroutinefunction(called):
            return _coroutine
    return _plain


def _is_awaitable(function: Any) -> bool:
    """Say whether a generator function was made a coroutine by `types.coroutine`."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _awaitable_generator(*arguments: Any) -> Callable[..., Any]:
    return types.coroutine(_generator(*arguments))


def _plain(
    function: Callable[..., Any], new_block: Callable[[], CallBlock], notes: arguments.CallNotes
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        block = new_block()
        if not block:
            return function(*args, **kwargs)
        with block as tracer:
            if not tracer.keeps_values:
                return function(*args, **kwargs)
            notes.arguments(block, args, kwargs)
            result = function(*args, **kwargs)
            notes.result(block, result)
            return result

    return call


def _coroutine(
    function: Callable[..., Awaitable[Any]], new_block: Callable[[], CallBlock], notes: arguments.CallNotes
) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        block = new_block()
        with block as tracer:
            if not tracer.keeps_values:
                return await function(*args, **kwargs)
            notes.arguments(block, args, kwargs)
            result = await function(*args, **kwargs)
            notes.result(block, result)
            return result

    return call


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], new_block: Callable[[], CallBlock], notes: arguments.CallNotes
) -> Callable[..., Any]:
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        with Opened(new_block()) as opened:
            if opened.tracer.keeps_values:
                notes.arguments(opened.block, args, kwargs)
            step: Callable[[Any], Any] = body.send
            sent: Any = None
            while True:
                with opened.inside:
                    try:
                        item = step(sent)
                    except StopIteration as end:
                        return end.value
                    finally:
                        # An exception: its traceback holds this frame, which would hold it.
                        sent = None
                try:
                    sent = yield item
                    step = body.send
                except GeneratorExit:
                    with opened.inside:
                        # Since Python 3.13 it has a value: what the body returns when it is closed.
                        last: Any = body.close()  # type: ignore[func-returns-value]
                    if last is None:
                        raise
                    return last
                except BaseException as error:
                    step, sent = body.throw, error

    return steps


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], new_block: Callable[[], CallBlock], notes: arguments.CallNotes
) -> Callable[..., Any]:
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        with Opened(new_block()) as opened:
            if opened.tracer.keeps_values:
                notes.arguments(opened.block, args, kwargs)
            step: Callable[[Any], Awaitable[Any]] = body.asend
            sent: Any = None
            while True:
                with opened.inside:
                    try:
                        item = await step(sent)
                    except StopAsyncIteration:
                        return
                    finally:
                        # An exception: its traceback holds this frame, which would hold it.
                        sent = None
                try:
                    sent = yield item
                    step = body.asend
                except GeneratorExit:
                    with opened.inside:
                        await body.aclose()
                    raise
                except BaseException as error:
                    step, sent = body.athrow, error

    return steps
