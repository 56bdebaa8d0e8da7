"""What tells that a client has left, and what does not."""

import asyncio

import pytest

from epsagon_fast.integrations.web.departures import is_departure
from epsagon_fast.producer.failures import is_error


class WebSocketDisconnect(Exception):
    """As Starlette's."""


class BrokenResourceError(Exception):
    """As AnyIO's."""


class Unreadable(WebSocketDisconnect):
    """One that an application derived."""


class Liar(type):
    """A class that says nothing of itself."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError


class Hostile(Exception, metaclass=Liar):
    """Of that class."""


@pytest.mark.parametrize(
    ("error", "by_itself", "if_told"),
    [
        (ConnectionResetError(), False, True),
        (WebSocketDisconnect(), True, True),
        (Unreadable(), True, True),
        (BrokenResourceError(), False, True),
        (ValueError(), False, False),
        (Hostile(), False, False),
        (ExceptionGroup("two", [BrokenPipeError(), ExceptionGroup("", [WebSocketDisconnect()])]), False, True),
        (ExceptionGroup("two", [BrokenPipeError(), ValueError()]), False, False),
        (BaseExceptionGroup("two", [WebSocketDisconnect(), asyncio.CancelledError()]), True, True),
        # No error, but not the client's doing either.
        (asyncio.CancelledError(), False, False),
        (None, False, False),
    ],
    ids=repr,
)
def test_client_that_leaves_is_known_by_what_is_raised(
    error: BaseException | None, by_itself: bool, if_told: bool
) -> None:
    assert is_departure(error, told=False) == by_itself
    assert is_departure(error, told=True) == if_told


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncio.CancelledError(), False),
        (BaseExceptionGroup("all cancelled", [asyncio.CancelledError(), GeneratorExit()]), False),
        (BaseExceptionGroup("one failed", [asyncio.CancelledError(), ValueError()]), True),
        (SystemExit(0), False),
        (SystemExit(3), True),
        (KeyboardInterrupt(), True),
    ],
    ids=repr,
)
def test_what_ends_work_from_outside_is_no_error(error: BaseException, expected: bool) -> None:
    assert is_error(error) == expected


CANCELLED = asyncio.CancelledError()
CANCELLED_GROUP = BaseExceptionGroup("all cancelled", [CANCELLED, GeneratorExit()])


@pytest.mark.parametrize("error", [CANCELLED, CANCELLED_GROUP], ids=repr)
def test_cancellation_is_an_error_of_a_task_that_was_not_cancelled(error: BaseException) -> None:
    async def judge(has_cancel: bool) -> tuple[bool, bool, bool]:
        task = asyncio.current_task()
        assert task
        if has_cancel:
            task.cancel()
        try:
            return is_error(error), is_departure(error, told=False), is_departure(error, told=True)
        finally:
            if has_cancel:
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(0)

    assert asyncio.run(judge(has_cancel=False)) == (True, False, True)
    assert asyncio.run(judge(has_cancel=True)) == (False, False, False)


def test_killed_greenlet_is_no_error() -> None:
    from greenlet import GreenletExit

    assert not is_error(GreenletExit())


def test_group_of_any_depth_is_looked_through() -> None:
    group: BaseException = BrokenPipeError()
    for _ in range(3000):
        group = BaseExceptionGroup("deeper", [group])
    assert is_departure(group, told=True)
