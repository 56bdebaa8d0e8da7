"""What the programs call: PostgreSQL, Redis, and servers that write down the headers that reach them."""

import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import celeries
import grpc
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from places import free_port, until
from servers import Server
from werkzeug.serving import make_server

Headers = dict[str, str]
START_TIMEOUT_S = 30.0


class Services:
    """All of them. `environment` leads the programs there; `told` are the headers, by the name of the call."""

    def __init__(self, stack: ExitStack) -> None:
        self.told: dict[str, Headers] = {}
        self._http = stack.enter_context(Server())
        broker = stack.enter_context(celeries.broker())["broker_url"]
        _need(broker.startswith("redis"), "redis-server is not installed")
        self.environment = {
            "DATABASE": stack.enter_context(postgresql()),
            "REDIS": broker,
            "HTTP": self._http.url,
            "S3": stack.enter_context(s3(lambda headers: self.told.update(boto3=headers))),
            "GRPC": stack.enter_context(rpc(self._asked)),
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            **{name: "testing" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
        }

    def take_stock(self) -> None:
        """Take over what the HTTP server was asked, by its path."""
        self.told.update({request.path.strip("/"): request.headers for request in self._http.requests})

    def _asked(self, headers: Headers) -> None:
        # Both clients say who they are.
        self.told["grpc_asyncio" if "asyncio" in headers.get("user-agent", "") else "grpc"] = headers


@contextmanager
def services() -> Iterator[Services]:
    """Start all of them; none is left at the end."""
    with ExitStack() as stack:
        yield Services(stack)


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a PostgreSQL of its own. It refuses to be root, so root starts it as its user."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(programs[-1]) if programs else shutil.which("initdb")
    _need(bool(found), "PostgreSQL is not installed")
    programs_folder = pathlib.Path(str(found)).parent
    folder = tempfile.mkdtemp(prefix="epsagon-postgresql-")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port = free_port()
    try:
        words = ["-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run([programs_folder / "initdb", *words], check=True, capture_output=True, cwd="/", **user)
        words = ["-D", f"{folder}/data", "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"]
        with open(f"{folder}/log", "w") as log:
            server = subprocess.Popen([programs_folder / "postgres", *words], stdout=log, stderr=log, cwd="/", **user)
        try:
            ready = [programs_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready).returncode == 0, pathlib.Path(folder, "log").read_text, START_TIMEOUT_S)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(2)
            server.wait(START_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def s3(asked: Callable[[Headers], object]) -> Iterator[str]:
    """Yield the URL of moto's server; `asked` is called with the headers of each request."""
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        names = {name[5:].lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
        asked(names)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, asked: Callable[[Headers], object]) -> None:
        self._asked = asked

    def service(self, details: Any) -> Any:
        self._asked(dict(details.invocation_metadata))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


@contextmanager
def rpc(asked: Callable[[Headers], object]) -> Iterator[str]:
    """Yield the address of a gRPC server that answers every call with nothing."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=(_Handler(asked),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _need(is_there: bool, what: str) -> None:
    if not is_there:
        assert not os.environ.get("CI"), what
        pytest.skip(what)
