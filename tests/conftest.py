import gc
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeQueue
from hypothesis import HealthCheck, settings
from places import Place, Privileges, descendants, until
from rings import TWINS, Twin

import epsagon_fast
from epsagon_fast.backend import Backend, running
from epsagon_fast.producer import entering, event, exiting, scope
from epsagon_fast.producer.place import PureStep
from epsagon_fast.producer.process import process

if TYPE_CHECKING:
    from celeries import Shop

# A script's background jobs ignore SIGINT and SIGQUIT, those under nohup SIGHUP; and what we start would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# The same examples in every run, and no outcome may hang on how busy the machine is. `make fuzz` looks for others.
TIMELESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", TIMELESS, derandomize=True)
settings.register_profile("fuzz", TIMELESS, max_examples=int(os.environ.get("EXAMPLES", "10000")))
settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Make a million objects that stay, without the garbage collector looking through them, now or during a test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def privileges(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave out a test that needs root, if we are not. Where CI is set that is an error: `-m "not root"` says so."""
    Privileges.claimed = request.node.get_closest_marker("root") is not None
    if Privileges.claimed and os.geteuid() != 0:
        assert not os.environ.get("CI"), "this test needs root"
        pytest.skip("needs root")
    yield
    Privileges.claimed = False


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no process is left, and no trace is current."""
    # The first spawn starts it, and multiprocessing keeps it for good.
    resource_tracker.ensure_running()
    before = {*descendants(os.getpid())}
    yield
    left = entering.current.get()
    entering.current.set(None)
    assert left is None, f"{left} is still the current trace"
    until(lambda: {*descendants(os.getpid())} <= before, lambda: f"all processes end: {descendants(os.getpid())}")


@pytest.fixture(params=TWINS, ids=lambda twin: twin.name)
def twin(request: pytest.FixtureRequest) -> Twin:
    """Each implementation of the ring in turn. Without the extension the tests cannot be collected: no skip."""
    return request.param


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that never traced anything, and whose environment says nothing about it."""
    for name in [name for name in os.environ if "EPSAGON" in name or name.startswith(("AWS_REGION", "OTEL_"))]:
        monkeypatch.delenv(name)
    # The process of the tests itself is to end as if it had traced nothing.
    monkeypatch.setattr(exiting, "register", lambda timeout_s=None: None)
    process.reset()
    yield
    process.reset()


@pytest.fixture
def queue(untraced: None, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """A queue without processes and files. Tracing is enabled, with a token and a backend that nobody asks."""
    fake = FakeQueue()
    process.reset(make_writers=lambda here: fake)
    monkeypatch.setenv("EPSAGON_TOKEN", "secret-token")
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "http://127.0.0.1:1")
    return fake


@pytest.fixture(params=["compiled", "reference"])
def each_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of events, traces and functions in both their implementations, on the tracer as it is.

    What was decorated before, such as a function of the test's module, stays as it was.
    """
    if request.param == "reference":
        for module, name, pure in (
            (scope, "Event", event.PureEvent),
            (scope, "Block", scope.PureBlock),
            (scope, "blocks_for", scope.pure_blocks_for),
            (epsagon_fast, "event", scope.pure_event),
            (event, "Step", PureStep),
        ):
            monkeypatch.setattr(module, name, pure)


@pytest.fixture
def backend() -> Iterator[Backend]:
    """The embedded backend, in a thread: `url`, and `store` with what has arrived."""
    with running() as server:
        yield server


@pytest.fixture
def place(backend: Backend) -> Iterator[Place]:
    """A runtime directory of its own that leads to `backend`; its collectors are ended after the test."""
    own = Place(backend.url)
    yield own
    own.close()


@pytest.fixture
def folder_fd(tmp_path: Path) -> Iterator[int]:
    """A directory's descriptor."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(scope="session")
def broker() -> Iterator[dict[str, Any]]:
    """celery's configuration for a broker of its own."""
    import celeries

    with celeries.broker() as conf:
        yield conf


@pytest.fixture
def shop(place: Place, backend: Backend, broker: dict[str, Any]) -> "Iterator[Shop]":
    """A celery application in `place`."""
    import celeries

    own = celeries.Shop(place, backend, broker)
    yield own
    own.close()
