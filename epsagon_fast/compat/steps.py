"""What the steps of AWS Step Functions hand on in their state, so that all of a run are one request.

It is where `epsagon` 1.82 has it, and as it wrote it: `{"Epsagon": {"id": a UUID, "step_num": 0}}`. Here the UUID is
the id that all traces of the run share, and `span_id` names the step before.
"""

import uuid
from collections import deque
from typing import Any, Final

from epsagon_fast.producer.context import TraceContext, context_of
from epsagon_fast.producer.ids import SPAN_ID, SPAN_ID_DIGITS
from epsagon_fast.producer.tracer import Tracer

KEY: Final = "Epsagon"
# Dicts and lists that are looked at in a state.
MOST_PLACES: Final = 1000


def found(state: Any) -> tuple[dict[str, Any], list[str]] | None:
    """Return the steps' data in a state and the keys that lead to where they are; None if there are none."""
    waiting: deque[tuple[Any, list[str]]] = deque([(state, [])])
    for _ in range(MOST_PLACES):
        if not waiting:
            return None
        place, path = waiting.popleft()
        if isinstance(place, dict):
            data = place.get(KEY)
            if isinstance(data, dict):
                return data, path
            waiting.extend((each, [*path, key]) for key, each in place.items())
        elif isinstance(place, list):
            # A result is not written into lists.
            waiting.extend((each, []) for each in place)
    return None


def context_in(state: Any) -> TraceContext | None:
    """Return the context of the step before; None if this is the first one, or what is there cannot be read."""
    data = found(state)
    if data is None:
        return None
    try:
        shared_id = uuid.UUID(data[0]["id"]).hex
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    span_id = data[0].get("span_id")
    if isinstance(span_id, str) and SPAN_ID.fullmatch(span_id):
        return TraceContext(shared_id, span_id)
    # Written by 1.82, which names no step: the first half of the shared id stands for it.
    return TraceContext(shared_id, shared_id[:SPAN_ID_DIGITS])


def advanced(tracer: Tracer, state: Any) -> dict[str, Any]:
    """Return the data that the next step needs."""
    context = context_of(tracer)
    shared_id = tracer.trace_id if context is None else context.trace_id
    before = found(state)
    number = before[0].get("step_num") if before else None
    step = number + 1 if type(number) is int else 0
    return {"id": str(uuid.UUID(shared_id)), "step_num": step, "span_id": tracer.span_id}


def hand_on(data: dict[str, Any], result: dict[str, Any], path: list[str]) -> None:
    """Put the data into a result, below the keys of `path` if dicts are there, else on top."""
    place: Any = result
    for key in path:
        place = place.get(key) if isinstance(place, dict) else None
    (place if isinstance(place, dict) else result)[KEY] = data
