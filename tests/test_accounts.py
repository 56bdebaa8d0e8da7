"""What each process has in the collector: all of it is counted once, until it is settled."""

from hypothesis import given
from hypothesis import strategies as st
from records import OTHER_RING, OTHER_TRACE_ID, RING, TRACE_ID, added, closed, event, label, opened, own_runner

from epsagon_fast.collector.assembling.accounts import TRACE_BYTES
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.protocol import NO_TRACE, Kind, Record

RINGS = (RING, OTHER_RING)
RECORDS = st.sampled_from(
    [
        opened(own_runner(k="v" * 50)),
        added(event(1, weak="x" * 200)),
        added(event(2, weak="x" * 200), OTHER_TRACE_ID),
        label("key", "value"),
        closed(0.5),
        Record(Kind.BYE, 0, 0, NO_TRACE, b""),
    ]
)


def held_by(assembly: Assembly, ring_id: bytes) -> int:
    return assembly.accounts.held_by(ring_id).memory_bytes


def test_opener_answers_for_what_others_add() -> None:
    assembly = Assembly()
    assembly.feed(RING, opened(), 0.0)
    assembly.feed(OTHER_RING, added(event(1, weak="x" * 5000)), 0.0)
    assert held_by(assembly, RING) > 5000
    assert held_by(assembly, OTHER_RING) == 0
    assert assembly.accounts.holds_most() == RING


def test_records_of_a_trace_not_yet_opened_are_their_own_process_s() -> None:
    assembly = Assembly()
    assembly.feed(OTHER_RING, added(event(1, weak="x" * 5000)), 0.0)
    assert held_by(assembly, OTHER_RING) > 5000
    assembly.feed(RING, opened(), 0.0)
    assert held_by(assembly, OTHER_RING) == 0 < 5000 < held_by(assembly, RING)


def test_finished_trace_counts_until_it_is_settled() -> None:
    assembly = Assembly()
    for record in (opened(), closed()):
        assembly.feed(RING, record, 0.0)
    for _ in range(2):
        assembly.end_pass(0.0)
    assert held_by(assembly, RING) == 0
    assembly.have_bodies([(TRACE_ID, 700)])
    assert (held_by(assembly, RING), assembly.held_bytes) == (700, 0)
    assembly.forget(TRACE_ID)
    assert held_by(assembly, RING) == 0


@given(st.lists(st.tuples(st.sampled_from(RINGS), RECORDS | st.just("pass") | st.just("died"))))
def test_the_sum_of_all_accounts_is_what_is_held(steps: list[tuple[bytes, Record | str]]) -> None:
    assembly = Assembly()
    for ring_id, step in steps:
        if step == "pass":
            for ready in assembly.end_pass(0.0):
                assembly.have_bodies([(ready.trace_id, 100)])
        elif isinstance(step, Record):
            assembly.feed(ring_id, step, 0.0)
        else:
            assembly.ring_died(ring_id, 0.0)
        held = [assembly.accounts.held_by(ring_id) for ring_id in RINGS]
        needed_bytes = assembly.held_bytes + 100 * assembly.unsettled_count
        assert sum(each.memory_bytes for each in held) == needed_bytes
        assert sum(each.journal_bytes for each in held) == needed_bytes - TRACE_BYTES * assembly.open_count
    for _ in range(2):
        for ready in assembly.end_pass(0.0):
            assembly.have_bodies([(ready.trace_id, 100)])
    for trace_id in assembly.ids():
        assembly.forget(trace_id)
    assert assembly.accounts.holds_most() is None
