"""`epsagon-fast run`: the program stays as it is, and is traced. Servers and databases: tests/instrumentations/."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest
from waiting import TIMEOUT_S

import epsagon_fast.auto.instrumentors as instrumentors
import epsagon_fast.auto.path as path
import epsagon_fast.auto.watched as watched
from epsagon_fast.auto.applications import FRAMEWORKS, SERVERS

RUN = [os.path.join(os.path.dirname(sys.executable), "epsagon-fast"), "run"]
BACKEND = {"EPSAGON_TOKEN": "secret-token", "EPSAGON_COLLECTOR_URL": "http://127.0.0.1:1"}
# What a program can see of how it was started. It writes it down just before its end.
SEEN = """
import json, os, sys
seen = {
    "argv": sys.argv, "cwd": os.getcwd(), "stdin": sys.stdin.read(), "path": sys.path, "parent": os.getppid(),
    "flags": tuple(sys.flags), "executable": sys.executable,
}
print(json.dumps(seen))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""
# Says in whichever process whether libraries are watched for.
WATCHES = "import sys; watches = any(type(each).__name__ == 'Watcher' for each in sys.meta_path)"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "EPSAGON" not in name and name[:5] != "OTEL_"}
    kept.pop("PYTHONPATH", None)
    return {**kept, **more}


def ran(*command: str, cwd: Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, input=stdin, env=environment(**more), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def traced(cwd: Path, code: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    program = cwd / "program.py"
    program.write_text(textwrap.dedent(code))
    return ran(*RUN, "--", sys.executable, *arguments, str(program), cwd=cwd, **(BACKEND | more))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with two libraries and an instrumentation for each, which are installed as pip would; one fails."""
    for name, body in (("shelves", "print('shelves instrumented')"), ("drawers", "raise RuntimeError('no\\x1b')")):
        (tmp_path / f"{name}.py").write_text("")
        (tmp_path / f"of_{name}.py").write_text(
            f"class Instrumentor:\n    def instrument(self, **_):\n        {body}\n"
            f"    def uninstrument(self):\n        print('{name} uninstrumented')\n",
        )
        about = tmp_path / f"of_{name}-1.dist-info"
        about.mkdir()
        (about / "entry_points.txt").write_text(
            f"[scripts]\nx = y:z\n\n[opentelemetry_instrumentor]\n{name} = of_{name}:Instrumentor\n\n[other]\na=b:c"
        )
        (about / "METADATA").write_text(
            f"Name: of-{name}\nVersion: 1\nRequires-Dist: wrapt\nRequires-Dist: {name}>=1; extra == 'instruments'\n\n"
        )
    return tmp_path


def test_program_sees_what_it_sees_without_us(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SEEN)
    command = [sys.executable, "-X", "dev", str(program), "--", "a b", "--list", "-x", "--"]
    plain = ran(*command, cwd=tmp_path, stdin="some text")
    below = ran(*RUN, *command, cwd=tmp_path, stdin="some text", **BACKEND)
    assert (below.returncode, below.stderr) == (plain.returncode, plain.stderr) == (7, "to stderr\n")
    assert json.loads(below.stdout) == json.loads(plain.stdout)
    # No process of ours is between the program and the one that started it.
    assert json.loads(below.stdout)["parent"] == os.getpid()


def test_signal_ends_the_program_as_without_us(tmp_path: Path) -> None:
    answer = traced(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert answer.returncode == -15


def test_without_a_backend_the_program_runs_untouched(tmp_path: Path) -> None:
    code = "import os; print([name for name in os.environ if 'EPSAGON' in name or name == 'PYTHONPATH'])"
    answer = ran(*RUN, sys.executable, "-c", code, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "[]\n")
    (line,) = answer.stderr.splitlines()
    assert "no backend is named" in line and "untraced" in line


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ([], 2, "which COMMAND?"),
        (["--"], 2, "which COMMAND?"),
        (["no-such-program"], 127, "no-such-program: not found"),
        (["/"], 126, "/: Permission denied"),
        (["--no-such-option"], 2, "--no-such-option"),
    ],
)
def test_what_cannot_be_run_ends_as_in_a_shell(tmp_path: Path, command: list[str], code: int, said: str) -> None:
    answer = ran(*RUN, *command, cwd=tmp_path, **BACKEND)
    assert answer.returncode == code
    assert said in answer.stderr


def test_a_program_beside_this_python_is_found_after_those_on_the_path(tmp_path: Path) -> None:
    own, on_path = tmp_path / "own/bin", tmp_path / "bin"
    venv.create(own.parent, symlinks=True)
    on_path.mkdir()
    lent = os.pathsep.join([str(Path(path.FOLDER).parents[2]), sysconfig.get_path("purelib")])
    for folder, name in ((own, "tool"), (own, "server"), (on_path, "tool")):
        (folder / name).write_text(f"#!/bin/sh\necho {folder}\n")
        (folder / name).chmod(0o755)

    def said(*command: str) -> str:
        run = [str(own / "python"), "-m", "epsagon_fast", "run"]
        return ran(*run, *command, cwd=tmp_path, **BACKEND, PATH=str(on_path), PYTHONPATH=lent).stdout

    assert said("server") == f"{own}\n"
    assert said("tool") == f"{on_path}\n"
    # A Python that is found so has its own environment too.
    assert said("python", "-c", "import sys; print(sys.prefix)") == f"{own.parent}\n"


def test_every_python_below_watches_however_it_was_started(tmp_path: Path) -> None:
    code = f"""
    {WATCHES}
    import multiprocessing, os, subprocess, sys

    def spawned(answers):
        {WATCHES}
        answers.put(watches)

    if __name__ == "__main__":
        print("started", watches, flush=True)
        subprocess.run([sys.executable, "-c", {WATCHES!r} + "; print('child', watches)"])
        answers = multiprocessing.get_context("spawn").SimpleQueue()
        child = multiprocessing.get_context("spawn").Process(target=spawned, args=(answers,))
        child.start(); child.join()
        print("spawned", answers.get(), flush=True)
        if not os.fork():
            os.execv(sys.executable, [sys.executable, "-c", {WATCHES!r} + "; print('executed', watches)"])
        os.wait()
        # These never ask for sitecustomize, or not for PYTHONPATH.
        for flag in ("-S", "-I", "-E"):
            subprocess.run([sys.executable, flag, "-c", {WATCHES!r} + "; print(sys.argv, watches)"])
    """
    lines = traced(tmp_path, code).stdout.splitlines()
    assert lines[:4] == ["started True", "child True", "spawned True", "executed True"]
    assert lines[4:] == ["['-c'] False"] * 3


def test_old_pythons_below_can_read_what_they_import() -> None:
    tree = ast.parse(Path(path.FOLDER, "sitecustomize.py").read_text(), feature_version=(3, 7))
    # With it no annotation is evaluated; a union of types is none that they know.
    assert ast.unparse(tree.body[1]) == "from __future__ import annotations"


def test_program_that_traces_nothing_imports_nothing_of_ours(tmp_path: Path) -> None:
    code = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    program = tmp_path / "program.py"
    program.write_text(code)
    plain = ran(sys.executable, str(program), cwd=tmp_path)
    more = {*json.loads(traced(tmp_path, code).stdout)} - {*json.loads(plain.stdout)}
    assert more <= {
        "sitecustomize",
        "importlib.machinery",
        "importlib",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "warnings",
        "_warnings",
        "__future__",
    }


def test_shadowed_sitecustomize_runs_and_is_the_module_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; print('theirs', __name__, __file__ == __spec__.origin)")
    code = f"{WATCHES}; import sitecustomize; print(watches, sitecustomize.__file__)"
    answer = traced(tmp_path, code, PYTHONPATH=str(tmp_path))
    # The command itself is a Python that imports it, too.
    assert answer.stdout.splitlines()[1:] == ["theirs sitecustomize True", f"True {tmp_path}/sitecustomize.py"]


def test_python_without_this_package_runs_untraced(tmp_path: Path) -> None:
    code = f"import flask; {WATCHES}; print(flask.here, watches)"
    (tmp_path / "flask.py").write_text("here = True")
    more = {"PYTHONPATH": f"{path.FOLDER}:{tmp_path}", watched.VARIABLE: "flask"}
    # Without the environment's packages; `site` is there all the same.
    base = os.path.realpath(sys.executable)
    answer = ran(base, "-s", "-c", code, cwd=tmp_path, **more)
    assert (answer.stdout, answer.stderr) == ("True True\n", "")


def test_instrumentation_begins_after_the_import_of_its_library(library: Path) -> None:
    code = """
    import json
    print("before")
    import shelves, drawers, importlib
    print(type(shelves.__loader__).__name__, vars(shelves.__loader__).keys())
    importlib.reload(shelves)
    print("after")
    """
    answer = traced(library, code, PYTHONPATH=str(library))
    attributes = "SourceFileLoader dict_keys(['name', 'path'])"
    assert answer.stdout.splitlines() == ["before", "shelves instrumented", attributes, "after"]
    assert "drawers is not traced: RuntimeError: 'no\\x1b'" in answer.stderr
    assert "\x1b" not in answer.stderr


def test_instrumentation_that_the_program_imports_first_is_left_to_it(library: Path) -> None:
    with (library / "of_shelves.py").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write("import shelves\n" + text)
    answer = traced(library, "import of_shelves; of_shelves.Instrumentor().instrument()", PYTHONPATH=str(library))
    assert (answer.stdout, answer.stderr) == ("shelves instrumented\n", "")


def test_program_that_has_the_sdk_keeps_it_and_its_spans_come_here_too(library: Path) -> None:
    code = """
    import shelves
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from epsagon_fast.testing import capture_traces

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    print(trace.get_tracer_provider() is provider)
    import drawers
    with capture_traces() as traces, trace.get_tracer("program").start_as_current_span("work"):
        pass
    print([span.name for span in exporter.get_finished_spans()])
    print([event["resource"]["name"] for trace in traces for event in trace["events"]])
    """
    answer = traced(library, code, PYTHONPATH=str(library))
    lines = ["shelves instrumented", "shelves uninstrumented", "True", "['work']", "['work']"]
    assert (answer.stdout.splitlines(), answer.stderr) == (lines, "")


def test_environment_leaves_out_what_it_names(library: Path) -> None:
    answer = traced(
        library, "import shelves, drawers", PYTHONPATH=str(library), EPSAGON_INSTRUMENT="-shelves, -drawers"
    )
    assert (answer.stdout, answer.stderr) == ("", "")


@pytest.mark.parametrize("name", ["redis", "-redsi", "-"])
def test_name_that_leaves_nothing_out_is_said_to_mean_nothing(tmp_path: Path, name: str) -> None:
    answer = traced(
        tmp_path, "print('runs')", EPSAGON_INSTRUMENT=f"{name},-flask,-urllib3,-psycopg2-binary,-Kafka_Python"
    )
    assert answer.stdout == "runs\n"
    (line,) = answer.stderr.splitlines()
    assert f"EPSAGON_INSTRUMENT: {name} is ignored" in line


def test_list_says_what_traces_each_library(library: Path) -> None:
    answer = ran(*RUN, "--list", cwd=library, PYTHONPATH=str(library), EPSAGON_INSTRUMENT="-flask")
    rows = {line.split()[0]: line for line in answer.stdout.splitlines()}
    assert rows["gunicorn"].endswith("epsagon_fast")
    assert rows["flask"].endswith("left out by EPSAGON_INSTRUMENT")
    # Its library is no installed package.
    assert "shelves" not in rows


def test_suggestion_is_a_pip_line_of_what_is_missing(tmp_path: Path) -> None:
    answer = ran(*RUN, "--suggest", cwd=tmp_path)
    words = answer.stdout.split()
    assert words[:2] == ["pip", "install"]
    assert {"opentelemetry-instrumentation-jinja2", "opentelemetry-instrumentation-redis"} <= {*words[2:]}
    assert not any(name.endswith(("flask", "celery", "urllib3")) for name in words)


def test_instrumentations_of_what_we_trace_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flask", "requests", "httpx", "click"):
        (about := tmp_path / f"{name}.dist-info").mkdir()
        (about / "entry_points.txt").write_text(f"[opentelemetry_instrumentor]\n{name} = package.{name}:Kind")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    instrumentors.installed.cache_clear()
    try:
        (only,) = instrumentors.wanted()
    finally:
        instrumentors.installed.cache_clear()
    assert (only.name, only.target, only.modules) == ("httpx", ("package.httpx", "Kind"), ("httpx",))


TWICE = """
from flask import Flask
from werkzeug.serving import make_server
from epsagon_fast.testing import capture_traces
import threading, urllib.request

app = Flask(__name__)
app.get("/<what>")(lambda what: what)
{change}
with capture_traces() as traces:
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    print(urllib.request.urlopen(f"http://127.0.0.1:{{server.port}}/x").read())
    thread.join()
    server.server_close()
    print(app.test_client().get("/y").data)
for trace in traces:
    (runner,) = [event for event in trace["events"] if event["origin"] == "runner"]
    print(runner["resource"]["metadata"]["path"], runner["resource"]["metadata"]["route"])
"""


@pytest.mark.parametrize(
    "change",
    [
        "",
        "from epsagon_fast.integrations.wsgi import TracingMiddleware; app.wsgi_app = TracingMiddleware(app.wsgi_app)",
    ],
    ids=["unchanged", "that uses the middleware"],
)
def test_request_to_a_program_is_one_trace(tmp_path: Path, change: str) -> None:
    answer = traced(tmp_path, TWICE.format(change=change))
    assert answer.stdout.splitlines() == ["b'x'", "b'y'", "/x /<what>", "/y /<what>"], answer.stderr


def test_application_that_takes_no_weak_reference_and_has_no_hash_is_traced(tmp_path: Path) -> None:
    (tmp_path / "falcon").mkdir()
    (tmp_path / "falcon" / "app.py").write_text(
        "class App:\n    __slots__ = ('name',)\n    def __eq__(self, other): return True\n"
        "    def __call__(self, environ, start_response):\n        start_response('200 OK', [])\n"
        "        return [self.name]\n"
    )
    code = """
    from wsgiref.util import setup_testing_defaults
    from epsagon_fast.testing import capture_traces
    from falcon.app import App

    with capture_traces() as traces:
        for name in (b"one", b"other"):
            app, environ = App(), {"PATH_INFO": "/" + name.decode()}
            app.name = name
            setup_testing_defaults(environ)
            print(*app(environ, lambda status, headers, exc_info=None: None))
    for trace in traces:
        print(trace["events"][-1]["resource"]["metadata"]["path"])
    """
    answer = traced(tmp_path, code)
    assert answer.stdout.splitlines() == ["b'one'", "b'other'", "/one", "/other"], answer.stderr


def test_asgi_application_is_one_trace_for_each_request(tmp_path: Path) -> None:
    code = """
    import asyncio, inspect
    from fastapi import FastAPI
    from uvicorn import Config
    from epsagon_fast.testing import capture_traces

    app = FastAPI()
    app.get("/{what}")(lambda what: what)

    async def ask(app):
        scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b"", "root_path": ""}
        async def receive(): return {"type": "http.request"}
        async def send(message): print(message["type"])
        await app(scope, receive, send)

    config = Config(app, lifespan="off")
    config.load()
    with capture_traces() as traces:
        asyncio.run(ask(config.loaded_app))
        asyncio.run(ask(app))
    for trace in traces:
        print(trace["events"][-1]["resource"]["metadata"]["route"])
    print(inspect.iscoroutinefunction(app.__call__))
    """
    answer = traced(tmp_path, code)
    sent = ["http.response.start", "http.response.body"] * 2
    assert answer.stdout.splitlines() == [*sent, "/{what}", "/{what}", "True"], answer.stderr


def test_gunicorn_gets_our_hooks_once_beside_the_programs_own(tmp_path: Path) -> None:
    code = """
    import sys
    from gunicorn.app.wsgiapp import WSGIApplication

    conf = open("conf.py", "w")
    conf.write("from epsagon_fast.integrations.gunicorn import on_exit\\n")
    conf.write("def worker_abort(worker): print('own', worker)")
    conf.close()
    sys.argv = ["gunicorn", "-c", "conf.py", "app:app"]
    cfg = WSGIApplication().cfg
    print(cfg.on_exit.__module__, cfg.worker_abort.__module__, cfg.post_worker_init.__module__)
    cfg.worker_abort("worker")
    """
    answer = traced(tmp_path, code)
    modules = "epsagon_fast.integrations.gunicorn epsagon_fast.auto.own epsagon_fast.auto.own"
    assert answer.stdout.splitlines() == [modules, "own worker"], answer.stderr


def test_watched_modules_are_those_of_servers_frameworks_and_installed_instrumentations(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(library)])
    instrumentors.installed.cache_clear()
    try:
        modules = {*watched.modules()}
    finally:
        instrumentors.installed.cache_clear()
    ours = {each.module for each in (*SERVERS, *FRAMEWORKS)}
    ours |= {"gunicorn.app.base", "uvicorn.config", "celery.app.base", "urllib3", "sanic", "opentelemetry.trace"}
    assert modules == ours | {"shelves", "drawers"}
