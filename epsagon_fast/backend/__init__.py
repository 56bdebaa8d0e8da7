"""The embedded backend: a small HTTP server that keeps traces in SQLite, for demo, tests and development.

    with epsagon_fast.backend.running() as backend:
        ...  # send traces to backend.url, look at backend.store

It needs the extra `backend` (starlette and uvicorn).
"""

from epsagon_fast.backend.server import Backend, running
from epsagon_fast.backend.store import Store

__all__ = ["Backend", "Store", "running"]
