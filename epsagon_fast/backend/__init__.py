"""The embedded backend: a small HTTP server that keeps traces in SQLite and shows them, for development and tests.

    with epsagon_fast.backend.running() as backend:
        ...  # send traces to backend.url, look at backend.store

Serving needs the extra `backend` (starlette, uvicorn and Jinja2); reading a store and drawing a request do not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epsagon_fast.backend.server import Backend, running
    from epsagon_fast.backend.store import Store

__all__ = ["Backend", "Store", "running"]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from epsagon_fast.backend.store import Store

        return Store
    if name in __all__:
        import epsagon_fast.backend.server as server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
