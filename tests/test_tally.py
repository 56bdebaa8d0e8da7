"""The traces of a pass are added up alike in compiled code and in Python."""

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from records import own_runner
from test_requests import HTTP, finished

from epsagon_fast.collector.formats.spans import name_of_runner
from epsagon_fast.collector.measuring.histogram import BOUNDS_NS, BOUNDS_S, placed
from epsagon_fast.collector.measuring.tally import TraceSum, pure_tally, tally

# Runners as producers write them and as nobody does, with names that change and durations at the bounds.
NAMES = st.sampled_from(["resize", "upload", "", None, 1, "x" * 300])
RESOURCES = st.one_of(
    st.none(),
    st.just([]),
    st.builds(
        lambda name, kind: {"name": name, "type": kind, "metadata": {}}, NAMES, st.sampled_from(["job", "http", 1])
    ),
    st.just({"name": "shop.example", **HTTP, "metadata": {"path": "/cart/17", "route": "/cart/{id}"}}),
)
DURATIONS = st.one_of(
    st.sampled_from([None, "1", 0, 1, -1.0, -0.0, 5e-10, 1.5e-9, 365 * 86400.0, 365 * 86400.0 + 1e-8, 1e300, 10**30]),
    st.sampled_from(BOUNDS_S).flatmap(lambda bound: st.sampled_from([bound, bound + 6e-10, bound - 4e-10])),
    st.floats(),
)
SAID = st.fixed_dictionaries(
    {"resource": RESOURCES}, optional={"duration": DURATIONS, "error_code": st.sampled_from([0, 2, None, "x"])}
)


@given(st.lists(st.tuples(st.none() | SAID, st.integers(0, 3)), max_size=8), st.booleans())
def test_traces_are_added_up_alike_in_both_ways(runners: list[tuple[dict[str, Any] | None, int]], knows: bool) -> None:
    (terms, other) = (finished(own_runner(), app_name=name).terms for name in ("shop", "jobs"))
    traces = []
    for number, (runner, which) in enumerate(runners):
        trace = finished(own_runner())
        trace.terms, trace.runner, trace.trace_id = other if which == 3 else terms, runner, bytes([number]) * 16
        trace.error = {} if which == 2 else None
        traces.append(trace)
    numbers = {"resize": 1, "upload": 2, "GET /cart/{id}": 1}
    # The first is one that an earlier collector has counted.
    counted_before = {bytes(8)} if knows else set()
    found = []
    for way in (tally, pure_tally):
        sums: defaultdict[tuple[int, int], TraceSum] = defaultdict(TraceSum)
        at = passed = 0
        while (at := way(traces, at, terms, numbers, counted_before, 8, BOUNDS_NS, sums)) < len(traces):
            trace = traces[at]
            at += 1
            # One that a way leaves is added here, unless no series is known for it.
            number = numbers.get(name_of_runner(trace.runner)) if trace.runner and trace.terms is terms else None
            if number is not None and trace.runner is not None:
                bucket, duration_ns = placed(trace.runner.get("duration"))
                sums[number, bucket].add(trace.has_failed, duration_ns, [trace.trace_id])
            else:
                passed += 1
        found.append(
            (passed, {key: (each.count, each.failures, each.duration_ns, each.ids) for key, each in sums.items()})
        )
    assert found[0] == found[1]
