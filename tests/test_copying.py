"""Objects of this package that the application copies or pickles: the same trace, a handle, or a clear refusal."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast.producer import _fast_path, fast_path
from epsagon_fast.queue import _pure, _ring
from epsagon_fast.trimming import _compiled

WAYS: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickle.dumps, lambda each: pickle.dumps(each, 0)]
CLASSES = [
    each
    for module in (_ring, _pure, _fast_path, fast_path, _compiled)
    for each in vars(module).values()
    if inspect.isclass(each)
    and each.__module__ == module.__name__
    # A block and its place know their trace, which says itself what may be done with it.
    and each not in (_pure.Turns, _fast_path.Silent, _fast_path.Place)
    and not issubclass(each, _fast_path.SpanId)
]


@dataclasses.dataclass
class Job:
    tracer: epsagon.Tracer


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda each: dataclasses.asdict(Job(each))["tracer"]], ids=range(3)
)
def test_copy_of_a_tracer_is_the_tracer(queue: FakeQueue, copied: Callable[[Any], Any]) -> None:
    with epsagon.trace("one") as tracer:
        again = copied(tracer)
        assert again is tracer
        again.add_event({"id": "1"})
    assert queue.kinds == ["OPEN", "EVENT", "CLOSE"]


def test_tracer_refuses_to_be_pickled_and_says_what_to_do(queue: FakeQueue) -> None:
    with epsagon.trace("one") as tracer, epsagon.attach(tracer.handle()) as attached, epsagon.event("inner") as event:
        for each in (tracer, attached, event, Job(tracer)):
            with pytest.raises(TypeError, match=r"handle\(\)"):
                pickle.dumps(each)
        handle = pickle.loads(pickle.dumps(tracer.handle()))
    assert handle == tracer.handle()


def test_copy_of_an_event_stays_in_its_trace(queue: FakeQueue) -> None:
    with epsagon.trace("one"), epsagon.event("inner") as event:
        event.metadata["list"] = [1]
        again = copy.deepcopy(event)
        again.metadata["list"].append(2)
    assert event.metadata == {"list": [1]}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_what_leads_into_a_ring_or_owns_memory_is_not_copied(kind: type) -> None:
    """Cython would copy an address, and the process would die of it."""
    for way in WAYS:
        with pytest.raises(TypeError, match="cannot be copied"):
            way(kind.__new__(kind))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_what_was_never_initialised_does_no_harm(kind: type) -> None:
    blank = kind.__new__(kind)
    arguments = (1, 0, bytes(16), b"payload")
    for name in dir(kind):
        if not name.startswith("__") or name in ("__call__", "__iter__", "__len__", "__next__"):
            for count in range(len(arguments) + 1):
                try:
                    getattr(blank, name)(*arguments[:count])
                except (TypeError, ValueError, AttributeError, NotImplementedError, IndexError, OSError, StopIteration):
                    continue
