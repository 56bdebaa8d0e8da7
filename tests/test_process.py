import ast
import ctypes
import os
from pathlib import Path

import pytest
from fakes import FakeQueue
from rings import in_child

import epsagon_fast as epsagon
from epsagon_fast import producer as producers
from epsagon_fast import queue
from epsagon_fast.log import warn_once
from epsagon_fast.pages import see
from epsagon_fast.producer import exiting
from epsagon_fast.producer.process import process

# Its generator of ids renews itself in a fork, as its compiled twin does.
OF_THEIR_OWN = {"pure_ids.py"}


@pytest.mark.parametrize("package", [producers, queue], ids=["producer", "queue"])
def test_no_module_has_state_besides_the_process(package: object) -> None:
    """A `global` statement says that a module keeps something that `reset` and a fork do not know of."""
    folder = Path(package.__path__[0])  # type: ignore[attr-defined]
    keeping = {
        path.name
        for path in folder.glob("*.py")
        if any(isinstance(node, ast.Global) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert keeping <= OF_THEIR_OWN


def test_reset_process_is_one_that_never_traced(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    never = vars(process).keys() - {"has_exit_hook"}, process.own.__dict__.keys()
    for _ in range(2):
        epsagon.init(application_name="shop", ring_bytes=1 << 20)
        tracer = epsagon.create_global_tracer()
        tracer.start()
        epsagon.label("with no", "trace")
        warn_once("said", "once", about="losses")
        exiting.parent_waits(os.getppid())
        exiting.say_bye()
        epsagon.shutdown(0)
        assert process.refuse("no_trace") is None and process.refusals()
        process.reset(make_writers=lambda here: FakeQueue())
        assert epsagon.global_tracer() is None
        assert not process.is_shut_down and not exiting.is_exiting() and not process.waiting_parent_pid
        assert process.config().application_name == "" and process.config().ring_bytes != 1 << 20
        assert process.all_traces() == [] and process.refusals() == {}
    assert caplog.messages.count("once" + see("losses")) == 2
    assert (vars(process).keys() - {"has_exit_hook"}, process.own.__dict__.keys()) == never


def test_forked_child_knows_what_it_inherits_and_has_all_else_of_its_own(queue: FakeQueue) -> None:
    epsagon.init(application_name="shop", shutdown_timeout_s=0.5)
    process.refuse("no_trace")
    with epsagon.trace("work") as tracer:
        before = process.own
        before.is_exiting = True

        def child() -> None:
            assert process.own is not before and process.own is process.own
            assert process.own.first_use is None and not exiting.is_exiting()
            # What the parent refused it counts itself.
            assert process.own.early_refusals == {}
            assert process.config().application_name == "shop"
            assert process.all_traces() == [tracer] and process.own_traces() == []

        assert os.waitpid(in_child(child), 0)[1] == 0
    assert process.own is before


def test_fork_that_runs_no_hook_is_noticed(queue: FakeQueue) -> None:
    """As of a server that is written in C."""
    assert process.own.pid == os.getpid()
    # It keeps the GIL, as a fork in an extension module does.
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        os._exit(0 if process.own.pid == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_child_of_a_child_has_its_own_again(queue: FakeQueue) -> None:
    def grandchild() -> None:
        assert process.own.pid == os.getpid()

    def child() -> None:
        assert process.own.pid == os.getpid()
        assert os.waitpid(in_child(grandchild), 0)[1] == 0

    assert process.own.pid == os.getpid()
    assert os.waitpid(in_child(child), 0)[1] == 0
