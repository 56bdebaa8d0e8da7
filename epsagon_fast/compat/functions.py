"""`python_wrapper`, and the wrappers of clouds whose functions have no meaning of their own here."""

from collections.abc import Callable
from typing import Any, TypeVar

from epsagon_fast.log import warn_once
from epsagon_fast.producer import scope

F = TypeVar("F", bound=Callable[..., Any])


def python_wrapper(*arguments: Any, **options: Any) -> Any:
    """Trace a function: `@python_wrapper`, `@python_wrapper()` or `@python_wrapper(name="nightly")`.

    name: the trace's, by default the function's. Inside another trace a call is recorded as an event of that.
    """
    name = options.get("name")
    if len(arguments) == 1 and callable(arguments[0]):
        return traced(arguments[0], name)
    return lambda function: traced(function, name)


def traced(function: F, name: str | None = None) -> F:
    """Return a function that traces its calls; the same one if it is a class, or nothing that can be called."""
    try:
        return scope.trace(name or getattr(function, "__name__", ""))(function)
    except TypeError:
        warn_once(
            "compat wrapper",
            "Not traced: a wrapper is for functions, not for a %s",
            type(function).__name__,
            about="the old names",
        )
        return function


def azure_wrapper(function: F) -> F:
    """Trace a function as `python_wrapper` does, and warn that nothing of Azure is known here."""
    return _of_cloud("azure_wrapper", function)


def gcp_wrapper(function: F) -> F:
    """Trace a function as `python_wrapper` does, and warn that nothing of Google's cloud is known here."""
    return _of_cloud("gcp_wrapper", function)


def tencent_function_wrapper(function: F) -> F:
    """Trace a function as `python_wrapper` does, and warn that nothing of Tencent's cloud is known here."""
    return _of_cloud("tencent_function_wrapper", function)


def _of_cloud(wrapper: str, function: F) -> F:
    message = "%s knows nothing of its cloud here: the function is traced as by python_wrapper"
    warn_once(f"compat {wrapper}", message, wrapper, about="the old names")
    return traced(function)
