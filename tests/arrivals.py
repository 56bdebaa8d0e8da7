"""What has arrived at a test's backend."""

import json
from typing import Any

from places import Place, until

from epsagon_fast.backend import Backend


def arrived(backend: Backend) -> dict[str, dict[str, Any]]:
    """Return every trace's body by the name of its runner."""
    bodies = [json.loads(body) for _, body in backend.store.bodies()]
    return {runner(body)["resource"]["name"]: body for body in bodies}


def await_traces(backend: Backend, place: Place, *names: str, once: bool = True) -> dict[str, dict[str, Any]]:
    """Wait until just these traces have arrived; return them by name.

    `once`: none may have come a second time, as it may if a collector was killed between an answer and its mark.
    """
    until(
        lambda: backend.store.counts()["traces"] >= len(names),
        lambda: f"{len(names)} traces arrive; only {sorted(arrived(backend))} did; the log:\n{place.log()}",
    )
    found = arrived(backend)
    assert sorted(found) == sorted(names)
    counts = backend.store.counts()
    assert counts["traces"] == len(names)
    assert not (once and counts["duplicates"])
    return found


def runner(trace: dict[str, Any]) -> dict[str, Any]:
    """Return the event that stands for the whole trace."""
    (found,) = [event for event in trace["events"] if event["origin"] == "runner"]
    return dict(found)


def ids(trace: dict[str, Any]) -> list[str]:
    """Return the ids of the trace's events without the runner's, in order."""
    return [event["id"] for event in trace["events"] if event["origin"] != "runner"]


def labels(trace: dict[str, Any]) -> dict[str, Any]:
    """Return the trace's labels."""
    return dict(json.loads(runner(trace)["resource"]["metadata"].get("labels", "{}")))


def death(trace: dict[str, Any]) -> str | None:
    """Return the type of the runner's exception, None if there is none."""
    return (runner(trace)["exception"] or {}).get("type")
