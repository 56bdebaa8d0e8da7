"""The main job with real processes: from `import epsagon_fast` to the backend's database."""

import json
import os
import signal

from places import Place, until

from epsagon_fast.backend import Backend

ONE_TRACE = """
import epsagon_fast as epsagon
with epsagon.trace("work") as tracer:
    tracer.add_event({"id": "one", "resource": {"name": "n", "metadata": {"k": "v"}}})
    epsagon.label("user", 42)
"""


def bodies(backend: Backend) -> list[dict]:
    return [json.loads(body) for _, body in backend.store.bodies()]


def test_a_script_is_traced_and_nothing_is_left_behind(backend: Backend, place: Place) -> None:
    place.run(ONE_TRACE)
    until(lambda: backend.store.counts()["traces"] == 1, "the trace arrives")
    (body,) = bodies(backend)
    assert body["events"][0]["id"] == "one"
    assert body["events"][1]["resource"]["metadata"] == {"labels": '{"user":42}'}
    place.until_left()
    assert not [name for name in os.listdir(place.folder) if name.endswith((".ring", ".corrupt"))]


def test_one_statement_of_a_megabyte_costs_no_other_event_a_byte(backend: Backend, place: Place) -> None:
    place.run(
        """
import epsagon_fast as epsagon
with epsagon.trace("work") as tracer:
    for number in range(50):
        tracer.add_event({"id": str(number), "resource": {"name": "n", "metadata": {"k": "v" * 300, "n": str(number)}}})
    tracer.add_event({"id": "sql", "resource": {"name": "db", "metadata": {"sql": "SELECT " + "x" * 1_000_000}}})
""",
        env={"EPSAGON_TRIMMING": "shorten"},
    )
    until(lambda: backend.store.counts()["traces"] == 1, "the trace arrives")
    ((_, data),) = backend.store.bodies()
    assert 65_536 - 100 < len(data) <= 65_536
    *ordinary, long, runner = [event["resource"]["metadata"] for event in json.loads(data)["events"]]
    assert ordinary == [{"k": "v" * 300, "n": str(number)} for number in range(50)]
    left, gone = long["sql"].split("... ")
    assert left.startswith("SELECT x") and len(left) + int(gone.removesuffix(" bytes left out")) == 1_000_007
    assert runner["is_trimmed"] == "true"


def test_the_collector_that_a_killed_worker_started_delivers(backend: Backend, place: Place) -> None:
    script = ONE_TRACE + "    import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    process = place.start(script)
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()
    # It died before it could see a collector, and no other process is there.
    until(lambda: backend.store.counts()["traces"] == 1, f"the trace arrives; {place.log()}")
    (body,) = bodies(backend)
    runner = body["events"][-1]
    assert (runner["error_code"], runner["exception"]["type"]) == (2, "ProcessDied")
    assert body["events"][0]["id"] == "one"


def test_two_copies_of_the_package_in_one_process_lose_nothing(backend: Backend, place: Place) -> None:
    script = """
import sys
import epsagon_fast as first
with first.trace("first"):
    with first.trace("before", new=True):
        pass
    assert first.flush(60)
    for name in [name for name in sys.modules if name.startswith("epsagon_fast")]:
        del sys.modules[name]
    import epsagon_fast as second
    assert second is not first
    for number in range(3):
        with second.trace("second"):
            pass
        assert second.flush(60)
    first.label("k", 1)
assert first.flush(60)
"""
    # Cython's modules can be imported once.
    place.run(script, env={"EPSAGON_FAST_IMPL": "reference"})
    until(lambda: backend.store.counts()["traces"] == 5, f"all traces arrive; {place.log()}")
    runners = {body["events"][-1]["resource"]["name"]: body["events"][-1] for body in bodies(backend)}
    assert runners["first"]["error_code"] == 0
    assert runners["first"]["resource"]["metadata"]["labels"] == '{"k":1}'
