"""Starting and stopping the backend: a listening socket, a database, uvicorn."""

import ipaddress
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import uvicorn

from epsagon_fast.backend.access import Access
from epsagon_fast.backend.app import application
from epsagon_fast.backend.connections import Connection, connections_max
from epsagon_fast.backend.hosts import Hosts
from epsagon_fast.backend.live import Live
from epsagon_fast.backend.retention import Retention
from epsagon_fast.backend.store import IN_MEMORY, Store

# As many as the kernel allows by default: a client whose connection waits here is slow, one that is refused is broken.
_BACKLOG = 4096
# Longer than the pauses of a busy tracer, so that its connections are seldom closed under it.
_KEEP_ALIVE_S = 60
# A request that is not whole by then is given up when the backend stops.
_LAST_REQUESTS_S = 3


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening TCP socket. Port 0: any free one. Raises OSError.

    Clients can connect from now on; they are answered when a server runs on it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # Connections inherit it. asyncio sets it on sockets that it opened itself only; without it the second half of each
    # answer waits for the client's delayed ACK of the first: 44 ms a request on loopback.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL under which a client on this machine finds a listening socket."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Say whether only this machine reaches a listening socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def http_server(store: Store, hosts: Hosts, access: Access) -> uvicorn.Server:
    """Return the server, not running yet: `run(sockets=[listener])` serves until its `should_exit` is set."""
    live = Live(store)
    config = uvicorn.Config(
        application(store, hosts, access, live),
        # uvicorn's h11: it would take whatever is installed, and each parser treats early answers in its own way.
        http=Connection,
        # One more than are kept, or uvicorn would refuse the last one.
        limit_concurrency=connections_max() + 1,
        loop="asyncio",
        ws="none",
        lifespan="off",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_REQUESTS_S,
        access_log=False,
        # The logging of the program around us is its own; problems still reach it on uvicorn's loggers.
        log_config=None,
        log_level=None,
    )
    server = uvicorn.Server(config)
    live.is_stopping = lambda: server.should_exit
    return server


class Backend:
    """A backend that serves from a thread of this process, from its making until `stop` or the end of its `with`.

    url: where it takes traces and shows them. store: the traces.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        database: str = IN_MEMORY,
        *,
        allowed_hosts: Iterable[str] = (),
        token: str | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._listener = listen(host, port)
        try:
            self.store = Store(database, retention)
        except BaseException:
            self._listener.close()
            raise
        self.url = url_of(self._listener)
        self.database = database
        self._server = http_server(self.store, Hosts(host, allowed_hosts), Access(token))
        serve = {"sockets": [self._listener]}
        self._thread = threading.Thread(target=self._server.run, kwargs=serve, name="epsagon-backend", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer the requests that have begun, leave, and close the database. A second call does nothing."""
        self._server.should_exit = True
        self._thread.join()
        # Some versions of uvicorn do not, if they are stopped before they have started.
        self._listener.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def running(
    host: str = "127.0.0.1",
    port: int = 0,
    database: str = IN_MEMORY,
    *,
    allowed_hosts: Iterable[str] = (),
    token: str | None = None,
    retention: Retention | None = None,
) -> Backend:
    """Start a backend in a thread; use it in `with`, or call its `stop`.

    port: 0 takes any free one. database: a path, or ":memory:". allowed_hosts: other names than
    `host` and this machine's own under which it answers. token: what readers and writers must know; None: nothing.
    retention: what is kept. The result has `url`, `database` and `store`.
    Raises OSError, sqlite3.Error, or ValueError for a database of something else.
    """
    return Backend(host, port, database, allowed_hosts=allowed_hosts, token=token, retention=retention)
