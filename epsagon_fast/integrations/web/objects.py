"""Looking at objects of the application and its frameworks: their attributes may be missing, or fail when asked for."""

from typing import Any

from epsagon_fast.interrupts import let_pass


def attribute(thing: Any, name: str) -> Any:
    """Return an attribute of the application's object; None if it has none or fails to give it."""
    try:
        return getattr(thing, name, None)
    except Exception as error:
        let_pass(error)
        return None
