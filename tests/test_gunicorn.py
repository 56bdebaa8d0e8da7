"""gunicorn itself, with real requests and real signals. What reaches the application arrives as a trace, once.

EPSAGON_TEST_FULL=1 (in `make soak`) runs every worker class through every scene, with more requests.
"""

import os
import pathlib
import signal

import gunicorn.config
import pytest
from gunicorns import (
    CONF,
    TIMEOUT_S,
    WORKERS,
    Gunicorn,
    Load,
    all_arrive,
    fetch,
    namespace_pid,
    path_of,
    runners,
    send_only,
)
from namespaces import readable_by_all
from places import NOBODY, Place, give_away, until

from epsagon_fast.backend import Backend
from epsagon_fast.integrations import gunicorn as hooks

FULL = os.environ.get("EPSAGON_TEST_FULL") == "1"
REQUESTS = int(os.environ.get("EPSAGON_TEST_REQUESTS", "40"))
HOOKS = {"post_worker_init", "worker_abort", "on_exit"}


def of_all(*usual: str) -> list[str]:
    """Return the worker classes to try."""
    return [*WORKERS] if FULL else [*usual]


# The conf.


def test_conf_sets_the_hooks_and_nothing_by_accident() -> None:
    settings = {setting.name for setting in gunicorn.config.KNOWN_SETTINGS}
    assert settings & set(vars(hooks)) == HOOKS


def test_hooks_take_what_gunicorn_gives_them() -> None:
    config = gunicorn.config.Config()
    for name in HOOKS:
        config.set(name, getattr(hooks, name))


# Under load.


def with_and_without_preload() -> list[tuple[str, ...]]:
    return [*((kind,) for kind in WORKERS), *((kind, "--preload") for kind in of_all("sync", "uvicorn"))]


@pytest.mark.parametrize("options", with_and_without_preload(), ids="".join)
def test_reloads_and_resizes_under_load_lose_nothing(backend: Backend, place: Place, options: tuple[str, ...]) -> None:
    place.linger()
    with Gunicorn(place, *options) as server, Load(server.port) as load:
        load.more(REQUESTS)
        collector = place.the_collector()
        before = set(server.workers())
        server.tell(signal.SIGHUP)
        until(lambda: len(now := set(server.workers())) == 2 and not now & before, "the workers are new", TIMEOUT_S)
        load.more(REQUESTS)
        server.tell(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 3, "a worker is added", TIMEOUT_S)
        load.more(REQUESTS)
        server.tell(signal.SIGTTOU)
        until(lambda: len(server.workers()) == 2, "a worker is taken away", TIMEOUT_S)
        load.more(REQUESTS)
        assert place.collectors() == [collector]
        server.leave()
        assert set(load.answers) == {200}
        all_arrive(server, backend)
        place.dismiss()
        assert_nothing_is_left(place)
        assert_collector_was_nobodys_child(server)


@pytest.mark.parametrize("kind", of_all("sync", "gthread", "uvicorn"))
def test_recycled_workers_lose_nothing(backend: Backend, place: Place, kind: str) -> None:
    place.linger()
    with Gunicorn(place, kind, "--max-requests", "3", "--max-requests-jitter", "2") as server:
        with Load(server.port) as load:
            load.more(REQUESTS)
            # Some look only once a second whether they have served enough.
            until(lambda: server.log().count("Booting worker") > 5, "workers are recycled", TIMEOUT_S)
        assert len(place.collectors()) == 1
        server.leave()
        all_arrive(server, backend)
        place.dismiss()
        assert_nothing_is_left(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, *([signal.SIGINT] if FULL else [])])
@pytest.mark.parametrize("kind", of_all("sync", "gevent"))
def test_end_in_the_middle_of_requests_loses_nothing(
    backend: Backend, place: Place, kind: str, number: signal.Signals
) -> None:
    with Gunicorn(place, kind) as server, Load(server.port, "slow") as load:
        load.more(8)
        server.leave(number)
        all_arrive(server, backend)
    # uvicorn's worker does not act on the master's SIGQUIT, until it is killed.
    died = [runner for runner in runners(backend) if runner["error_code"]]
    assert not died or (kind == "uvicorn" and number != signal.SIGTERM), died


# Workers that die.


@pytest.mark.parametrize("kind", ["sync", "uvicorn"])
def test_request_that_runs_into_the_timeout_says_so(backend: Backend, place: Place, kind: str) -> None:
    with Gunicorn(place, kind, "--timeout", "1") as server:
        client = send_only(server.port, "/sleep/1")
        until(lambda: backend.store.counts()["traces"], lambda: f"the trace arrives\n{server.log()}")
        client.close()
        assert fetch(server.port, "/r/1")[0] == 200
        server.leave()
        all_arrive(server, backend)
    [late] = [runner for runner in runners(backend) if path_of(runner) == "/sleep/1"]
    assert late["error_code"] == 3
    assert late["exception"]["type"] == "WorkerTimeout"
    # The last line is where it was.
    assert late["exception"]["traceback"].rstrip().endswith("time.sleep(60)")


@pytest.mark.parametrize("kind", ["gevent", "asgi"])
def test_worker_that_is_busy_at_its_timeout_says_where(backend: Backend, place: Place, kind: str) -> None:
    with Gunicorn(place, kind, "--timeout", "2") as server:
        before = set(server.workers())
        send_only(server.port, "/spin/1").close()
        until(lambda: backend.store.counts()["traces"], lambda: f"the trace arrives\n{server.log()}")
        until(lambda: not before <= set(server.workers()), "the worker is ended")
        server.until_serving()
        server.leave()
    [runner] = runners(backend)
    assert runner["error_code"] == 3
    assert "in block" in runner["exception"]["traceback"]


def test_worker_that_hears_no_signal_is_killed_and_its_request_arrives(backend: Backend, place: Place) -> None:
    with Gunicorn(place, "sync", "--timeout", "1") as server:
        client = send_only(server.port, "/deaf/1")
        until(lambda: backend.store.counts()["traces"], lambda: f"the trace arrives\n{server.log()}")
        client.close()
        server.leave()
    [runner] = runners(backend)
    assert runner["exception"]["type"] == "ProcessDied"


@pytest.mark.parametrize("kind", ["gthread", "gevent"] if FULL else ["gthread"])
def test_killed_workers_requests_arrive(backend: Backend, place: Place, kind: str) -> None:
    with Gunicorn(place, kind, "-w", "1") as server:
        clients = [send_only(server.port, f"/sleep/{number}") for number in range(3)]
        until(lambda: server.reached().total() == 3, "the requests are there")
        os.kill(server.workers()[0], signal.SIGKILL)
        all_arrive(server, backend)
        for client in clients:
            client.close()
        server.leave()
    assert {runner["exception"]["type"] for runner in runners(backend)} == {"ProcessDied"}


def test_worker_and_collector_that_die_together_lose_nothing(backend: Backend, place: Place) -> None:
    with Gunicorn(place, "sync", "-w", "1") as server:
        assert fetch(server.port, "/r/1")[0] == 200
        client = send_only(server.port, "/sleep/1")
        until(lambda: server.reached().total() == 2, "the request is there")
        for pid in (place.the_collector(), *server.workers()):
            os.kill(pid, signal.SIGKILL)
        # No further request: the new worker looks after what the old one left.
        all_arrive(server, backend, collector_lived=False)
        client.close()
        server.leave()


# Where and as whom it runs.


@pytest.mark.root
def test_workers_may_be_another_user_than_the_master(backend: Backend, place: Place) -> None:
    give_away(place.runtime_dir)
    place.linger()
    with Gunicorn(place, "sync", "--user", str(NOBODY), wrapper=readable_by_all()) as server:
        with Load(server.port, count=REQUESTS) as load:
            load.join()
        assert fetch(server.port, "/pid")[1].split()[1] == str(NOBODY).encode()
        [collector] = place.collectors()
        assert os.stat(f"/proc/{collector}").st_uid == NOBODY
        assert os.stat(f"/proc/{server.master}").st_uid == 0
        server.leave()
        all_arrive(server, backend)
    place.dismiss()
    # A master that is root has put nothing there that the workers could not use.
    for path in pathlib.Path(place.runtime_dir).rglob("*"):
        assert path.stat().st_uid == NOBODY, path


@pytest.mark.root
@pytest.mark.parametrize("kind", of_all("sync", "uvicorn"))
def test_process_1_of_a_container_waits_until_all_is_delivered(backend: Backend, place: Place, kind: str) -> None:
    place.linger()
    unshare = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with Gunicorn(place, kind, wrapper=unshare) as server:
        assert namespace_pid(server.master) == 1
        with Load(server.port, count=REQUESTS) as load:
            load.join()
        # Here the collector becomes a child of the master, which may not take it for a worker.
        [collector] = place.collectors()
        os.kill(collector, signal.SIGKILL)
        until(lambda: not place.collectors(), "the collector is gone")
        with Load(server.port, "s", count=REQUESTS) as load:
            load.join()
        assert "Reaped unknown child" in server.log()
        assert set(load.answers) == {200}
        server.leave()
        # The kernel has killed whatever was in the container, so nothing can arrive any more.
        assert backend.store.counts()["traces"] == server.reached().total()
        all_arrive(server, backend, collector_lived=False)


def test_restart_gets_its_port_at_once(backend: Backend, place: Place) -> None:
    place.linger()
    with Gunicorn(place, "sync") as first:
        assert fetch(first.port, "/r/1")[0] == 200
        place.the_collector()
        first.leave()
        assert place.collectors()
    with Gunicorn(place, "sync", port=first.port) as second:
        assert fetch(second.port, "/r/2")[0] == 200
        assert "Connection in use" not in second.log()
        second.leave()
        all_arrive(second, backend)


def test_wrong_token_shows_in_gunicorns_log(backend: Backend, place: Place) -> None:
    del place.env["EPSAGON_TOKEN"]
    with Gunicorn(place, "sync") as server:
        assert fetch(server.port, "/r/1")[0] == 200
        line = next(line for line in server.log().splitlines() if "No token is set" in line)
        # In gunicorn's own form: time, pid, level.
        assert "[WARNING]" in line
        server.leave()


# A conf of one's own.


def test_hooks_work_one_by_one_in_a_conf_of_ones_own(backend: Backend, place: Place) -> None:
    (place.scratch / "conf.py").write_text(own_conf())
    with Gunicorn(place, "sync", "-c", str(place.scratch / "conf.py")) as server:
        assert fetch(server.port, "/r/1")[0] == 200
        server.leave()
        assert "my own hook" in server.log()
        all_arrive(server, backend)


def own_conf() -> str:
    """The conf that docs/gunicorn.md shows."""
    page = (pathlib.Path(__file__).parent.parent / "docs" / "gunicorn.md").read_text()
    assert f"gunicorn -c {CONF} app:app" in page
    [block] = [block for block in page.split("```python\n")[1:] if "my own hook" in block]
    return block.split("```")[0]


def assert_nothing_is_left(place: Place) -> None:
    """Hold that no ring is left in the folder of a server that has ended."""
    assert not [name for name in os.listdir(place.folder) if name.endswith((".ring", ".corrupt"))]


def assert_collector_was_nobodys_child(server: Gunicorn) -> None:
    """Hold that the master never reaped a process that it had not started."""
    assert "Reaped unknown child" not in server.log()
