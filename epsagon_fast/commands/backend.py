"""Run a small backend on this machine. It takes traces with any token and keeps them in a SQLite file.

Stop it with Ctrl-C or SIGTERM.
"""

import argparse
import os
import signal
import socket
import sqlite3
from typing import TYPE_CHECKING

from epsagon_fast.backend.place import TOKEN_VARIABLE, make_default_database
from epsagon_fast.commands.saying import fail, say
from epsagon_fast.digits import number
from epsagon_fast.foreign import escaped

if TYPE_CHECKING:
    from epsagon_fast.backend.retention import Retention

_INSTALL = "pip install 'epsagon-fast[backend]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast backend`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="another name under which clients ask for it, as of its container; may be repeated",
    )
    parser.add_argument("--port", type=_port, default=8686, help="0 takes any free one (default: %(default)s)")
    parser.add_argument(
        "--database",
        metavar="PATH",
        help="SQLite file, made if missing; ':memory:': none (default: backend.sqlite in $EPSAGON_STATE_DIR,"
        " else in $XDG_STATE_HOME/epsagon-fast, else in ~/.local/state/epsagon-fast)",
    )
    parser.add_argument(
        "--token",
        type=_token,
        default=os.environ.get(TOKEN_VARIABLE) or None,
        help=f"what readers and writers must know (default: ${TOKEN_VARIABLE}, which `ps` does not show)",
    )
    parser.add_argument("--open", action="store_true", help="let all who reach another address than loopback come in")
    for name, kind, what in (
        ("--max-age", _seconds, "forget traces that are older, as 30m, 12h or 7d"),
        ("--max-traces", _count, "keep so many"),
        ("--max-bytes", _count, "keep bodies of so many bytes (default: 1 GiB)"),
    ):
        parser.add_argument(name, type=kind, metavar=name[6:].upper(), help=what)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return 0, or 1 if it cannot start."""
    try:
        from epsagon_fast.backend import server
    except ModuleNotFoundError as error:
        return fail("backend", f"{error}; the backend needs an extra: {_INSTALL}")
    try:
        listener = server.listen(arguments.host, arguments.port)
    except (OSError, UnicodeError) as error:
        # A UnicodeError: the host is no name at all. An OSError's strerror also names the address.
        reason = getattr(error, "strerror", None) or error
        return fail("backend", f"cannot listen: {reason}; --host and --port choose another place")
    with listener:
        if not (server.is_loopback(listener) or arguments.token or arguments.open):
            wanted = "beyond this machine it wants --token TOKEN, or --open to let all who reach it read and add traces"
            return fail("backend", wanted, 2)
        return _serve(listener, arguments)


def _serve(listener: socket.socket, arguments: argparse.Namespace) -> int:
    from epsagon_fast.backend import access, hosts, log, retention, server, store

    database = arguments.database
    log.set_up()
    try:
        path = make_default_database() if database is None else database
        traces = store.Store(path, _retention(arguments, retention.Retention()))
    except (OSError, sqlite3.Error, ValueError) as error:
        return fail("backend", f"cannot use the database: {error}")
    with traces:
        doors = hosts.Hosts(arguments.host, arguments.allow_host), access.Access(arguments.token)
        uvicorn = server.http_server(traces, *doors)
        # uvicorn sets these too, but only once it runs, and raises the signal again when it has finished: without ours
        # that would end in a traceback or in an exit code other than 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, uvicorn.handle_exit)
        if not (server.is_loopback(listener) or arguments.token):
            say("backend", "it listens beyond this machine: all who reach it can read and add traces")
        _announce(server.url_of(listener), path, "local" if arguments.token is None else "<the token>")
        uvicorn.run(sockets=[listener])
    return 0


def _announce(url: str, path: str, token: str) -> None:
    print(f"# Keeping traces in {escaped(path)}. To send some here, paste this where your program starts:")
    print(f"export EPSAGON_COLLECTOR_URL={url}")
    # Without --token any is taken, but without one the tracer is off.
    print(f"export EPSAGON_TOKEN={token}")
    print(f"# Look at them: {url}", flush=True)


def _retention(arguments: argparse.Namespace, default: "Retention") -> "Retention":
    given = {"age_s": arguments.max_age, "traces": arguments.max_traces, "bytes": arguments.max_bytes}
    return default._replace(**{name: limit for name, limit in given.items() if limit is not None})


def _port(text: str) -> int:
    port = number(text)
    if port is None or port > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return port


def _token(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty token keeps no one out")
    return text


def _count(text: str) -> int:
    count = number(text)
    if not count:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return count


def _seconds(text: str) -> float:
    from epsagon_fast.backend.filters import BadQuery, amount_s

    try:
        span_s = amount_s("", text)
    except BadQuery:
        span_s = 0.0
    if not span_s:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0: a number of seconds, or as 30s, 12h, 7d")
    return span_s
