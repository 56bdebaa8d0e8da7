"""Servers that end their process by the signal that asked them to: no exit hook runs there.

uvicorn puts the handlers back that it found, and raises the signal once more. In a container its worker's end may be
the end of process 1, and that of the collector. So the wait for this process's traces belongs to the server's shutdown,
which it has ended by then: no request is left, and the application's own shutdown is over.
"""

import signal
from typing import Any, Final

from epsagon_fast.producer import exiting

# The modules of the classes of such servers. The handler of their signals is a method of the server.
SERVERS: Final = ("uvicorn.server",)


def wait_at_shutdown() -> None:
    """Let the server that handles this process's SIGTERM wait for the traces at its end, if it is such a one."""
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if any(kind.__module__ in SERVERS for kind in type(server).__mro__):
        vars(server).setdefault("shutdown", _Shutdown(server.shutdown))


class _Shutdown:
    """A server's `shutdown`, and the wait after it."""

    def __init__(self, shutdown: Any) -> None:
        self._shutdown = shutdown

    async def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            return await self._shutdown(*arguments, **keywords)
        finally:
            exiting.wait_until_safe()
