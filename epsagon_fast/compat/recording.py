"""What programs say about the trace that they are in. Where there is none, or anything is wrong, nothing happens."""

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from epsagon_fast.config.values import is_otlp
from epsagon_fast.foreign import origin
from epsagon_fast.producer import correlation, current, encoding
from epsagon_fast.producer.times import now
from epsagon_fast.protocol import ErrorCode

from .options import put_in_force
from .settings import settings

F = TypeVar("F", bound=Callable[..., Any])
# Labels in a label, of a dict that may hold itself.
MOST_LEVELS: Final = 8


def label(key: str, value: Any) -> None:
    """Label the current trace. A dict becomes a label for each of its values: `key.name`."""
    _label(key, value, MOST_LEVELS)


def _label(key: str, value: Any, levels: int) -> None:
    if isinstance(value, dict) and type(key) is str and levels:
        for name, each in value.copy().items():
            _label(f"{key}.{encoding.metadata_text(name)}", each, levels - 1)
    else:
        current.add_label(key, value)


def error(exception: BaseException | str, traceback_data: str | None = None, from_logs: bool = False) -> None:
    """Say that the current trace failed, though its work goes on. traceback_data: the traceback to show."""
    if traceback_data is None and not from_logs:
        current.error(exception)
    else:
        _tell(exception, traceback_data, ErrorCode.ERROR, {"from_logs": from_logs})


def warning(exception: BaseException | str, traceback_data: str | None = None, from_logs: bool = False) -> None:
    """Show an exception with the current trace, which does not make it one that failed."""
    _tell(exception, traceback_data, ErrorCode.OK, {"warning": True, "from_logs": from_logs})


def _tell(exception: Any, traceback_data: str | None, code: ErrorCode, additional: Mapping[str, bool]) -> None:
    tracer = current.acting_trace()
    if tracer is None:
        current.no_trace()
        return
    is_text = isinstance(exception, str)
    told = {
        "type": "Exception" if is_text else type(exception).__name__,
        "message": encoding.metadata_text(exception),
        "traceback": traceback_data or "",
        "time": now(tracer.typed),
        "additional_data": {key: "true" for key, value in additional.items() if value},
    }
    tracer.update_runner(None, None if code == ErrorCode.OK else code, told)


def measure(function: F) -> F:
    """Decorate a function: a label NAME_duration of the current trace says how many seconds its last call took."""
    if not hasattr(function, "__name__"):
        return function
    key = f"{function.__name__}_duration"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        began_s = time.perf_counter()
        result = function(*args, **kwargs)
        current.add_label(key, round(time.perf_counter() - began_s, 3))
        return result

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        began_s = time.perf_counter()
        result = await function(*args, **kwargs)
        current.add_label(key, round(time.perf_counter() - began_s, 3))
        return result

    return cast(F, call_async if inspect.iscoroutinefunction(function) else call)


def disable() -> None:
    """Record nothing of traces that open from now on."""
    settings.is_disabled = True
    put_in_force()


def enable() -> None:
    """Record traces again, unless DISABLE_EPSAGON is set."""
    settings.is_disabled = False
    put_in_force()


def get_trace_url() -> str | None:
    """Return the address of the current trace's page in the backend's viewer; None where nothing is traced.

    None too where traces go to another backend as OTLP, whose pages have addresses of its own.
    """
    ids = correlation.current_ids()
    tracer = current.acting_trace()
    if ids is None or tracer is None or is_otlp(tracer.config.collector_url):
        return None
    return f"{origin(tracer.config.collector_url)}/requests/{ids.http_trace_id}"
