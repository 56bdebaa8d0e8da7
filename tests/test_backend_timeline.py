"""A request's tree, its times and how it is written; without a browser."""

import json
from typing import Any

import pytest
from records import event_fields, exception_fields

from epsagon_fast.backend import outline
from epsagon_fast.backend.pages import details
from epsagon_fast.backend.timeline import Timeline, build

AT = 1_700_000_000.0


def event(name: str, start: float | None, duration: float | None, parent: str = "", **more: Any) -> dict[str, Any]:
    """An event that is called and identified by its name."""
    fields = event_fields(name, **more.pop("metadata", {}))
    fields |= {"id": name, "start_time": None if start is None else AT + start, "duration": duration, **more}
    fields["resource"] = {**fields["resource"], "name": name}
    return fields | ({"parent_id": parent} if parent else {})


def trace(*events: dict[str, Any], app: str = "shop", **more: Any) -> bytes:
    fields = {"app_name": app, "token": "t", "events": events, "exceptions": [], "version": "1", "platform": "p"}
    return json.dumps({**fields, **more}).encode()


def timeline(*bodies: bytes) -> Timeline:
    return build([(f"t{number}", body) for number, body in enumerate(bodies)])


def tree(found: Timeline) -> list[str]:
    return ["  " * node.depth + node.title for node in found.nodes]


WEB = trace(
    event("query", 0.1, 0.2),
    event("call", 0.3, 0.4, "web"),
    event("web", 0.0, 1.0, origin="runner"),
)
CALLED = trace(
    event("insert", 0.45, 0.1, "lock"),
    event("lock", 0.4, 0.2),
    event("called", 0.35, 0.3, "call", origin="runner"),
    app="payments",
)
TASK = trace(event("task", 1.5, 0.5, "call", origin="runner"))


def test_traces_of_one_request_are_one_tree() -> None:
    assert tree(timeline(TASK, WEB, CALLED)) == [
        "web",
        "  query",
        "  call",
        "    called",
        "      lock",
        "        insert",
        "    task",
    ]


def test_without_parent_ids_events_stand_below_their_runner_and_traces_side_by_side() -> None:
    bodies = [body.replace(b"parent_id", b"other") for body in (WEB, CALLED)]
    assert tree(timeline(*bodies)) == ["web", "  query", "  call", "called", "  lock", "  insert"]


def test_a_trace_without_a_runner_or_with_unknown_parents_is_shown_too() -> None:
    assert tree(timeline(trace(event("a", 0, 1), event("b", 1, 1, "a"), event("c", 2, 1, "gone")))) == ["a", "  b", "c"]
    assert timeline(trace()).nodes == [] and timeline(trace()).duration_s == 0


@pytest.mark.parametrize("lacking", [None, -AT], ids=["null", "0"])
def test_what_says_no_time_stands_where_its_trace_begins(lacking: float | None) -> None:
    found = timeline(trace(event("a", 2, 1), event("b", lacking, 1)), trace(event("c", lacking, 1)))
    assert [node.start - AT for node in found.nodes] == [2, 2, 2]
    assert found.duration_s == 1


def test_events_that_caused_each_other_end_nothing() -> None:
    own = event("own", 0, 1, "own")
    circle = [event("a", 0, 1, "c"), event("b", 0, 1, "a"), event("c", 0, 1, "b")]
    found = timeline(trace(own, *circle))
    assert sorted(node.title for node in found.nodes) == ["a", "b", "c", "own"]


def test_a_tree_may_be_as_deep_as_it_has_events() -> None:
    events = [event(str(number), number, 10_000 - number, str(number - 1)) for number in range(5000)]
    found = timeline(trace(*events))
    assert found.nodes[-1].depth == 4999
    assert len(outline.text(found).splitlines()) == len(json.loads(outline.as_json(found))) == 5000


def test_self_time_is_what_no_child_covers() -> None:
    found = timeline(trace(event("a", 0, 10), event("b", 1, 3, "a"), event("c", 2, 4, "a"), event("d", 9, 5, "a")))
    assert {node.title: node.self_s for node in found.nodes} == pytest.approx({"a": 4.0, "b": 3.0, "c": 4.0, "d": 5.0})


def test_the_critical_path_is_what_the_end_waited_for() -> None:
    found = timeline(WEB, CALLED, TASK)
    waited = {
        node.title: sorted((round(start - AT, 3), round(end - AT, 3)) for start, end in node.critical)
        for node in found.nodes
    }
    assert waited == {
        "web": [(0.0, 0.1)],
        "query": [(0.1, 0.3)],
        "call": [(0.3, 0.35), (0.65, 0.7)],
        "called": [(0.35, 0.4), (0.6, 0.65)],
        "lock": [(0.4, 0.45), (0.55, 0.6)],
        "insert": [(0.45, 0.55)],
        "task": [(1.5, 2.0)],
    }


def test_a_clock_that_differs_is_shown_and_not_corrected() -> None:
    early = trace(event("called", 0.1, 0.3, "call", origin="runner"))
    found = timeline(WEB, early)
    node = next(node for node in found.nodes if node.title == "called")
    assert (node.start - AT, node.skew_s) == pytest.approx((0.1, 0.2))
    assert "(its clock: 200 ms before its caller's)" in outline.text(found)
    assert [node.skew_s for node in timeline(WEB).nodes] == [0.0] * 3


@pytest.mark.parametrize(("start", "duration"), [(None, None), (0, None), (None, 1), (0, -5), (1e14, 1e14)])
def test_times_that_are_not_known_are_no_hindrance(start: Any, duration: Any) -> None:
    found = timeline(trace(event("a", start, duration), event("b", 1, 1)))
    assert found.nodes[0].duration_s >= 0 and outline.text(found)


def test_the_outline_has_a_line_for_each_event_and_nothing_a_terminal_obeys() -> None:
    hostile = "\x1b[2J\r\n\u202e"
    failed = {**exception_fields(hostile), "type": hostile}
    found = timeline(trace(event("web", 0, 1, origin="runner"), event(hostile, 0.5, 0.25, exception=failed)))
    said = outline.text(found)
    assert len(said.splitlines()) == 2
    assert said.splitlines()[0].split() == ["web", "▕████████████████████████▏", "1", "s", "sql", "SELECT"]
    assert "▕            ██████      ▏" in said.splitlines()[1]
    assert not {*"\x1b\r\u202e"} & {*said}
    assert "\x1b[31m" in outline.text(found, colours=True)
    assert outline.text(found, 1).count("\n") == 1


def test_a_subtree_is_an_event_with_all_below_it() -> None:
    found = timeline(WEB, CALLED)
    place = found.find("t1")
    assert place is not None
    assert [record["id"] for record in outline.records(found, place)] == ["called", "lock", "insert"]
    assert [record["depth"] for record in outline.records(found, place)] == [0, 1, 2]
    assert found.find("t1:0") == 5 and found.find("t9") is None


def test_json_in_a_string_is_unfolded_also_inside() -> None:
    inner = json.dumps({"lines": [1, 2]})
    assert details.unfold(json.dumps({"body": inner})) == {"body": {"lines": [1, 2]}}
    assert details.unfold("{not json") == "{not json"
    assert details.unfold("[" * 100_000) == "[" * 100_000


def test_a_statement_has_a_line_for_each_part_but_not_inside_quotes() -> None:
    statement = "SELECT a FROM t LEFT JOIN u ON x = y WHERE b = ' FROM c ' AND d > 1 ORDER BY a LIMIT 3"
    assert details.sql(statement).splitlines() == [
        "SELECT a",
        "FROM t",
        "LEFT JOIN u ON x = y",
        "WHERE b = ' FROM c '",
        "  AND d > 1",
        "ORDER BY a",
        "LIMIT 3",
    ]


@pytest.mark.parametrize("part", [" ", " LEFT ", "'", "''", ' "', " OR", "\n\t "])
def test_a_statement_of_any_kind_is_read_once(part: str) -> None:
    # Ten times as much takes ten times as long, not a hundred: these took minutes.
    statement = "SELECT" + part * 30_000
    assert details.sql(statement + "x").replace("\n", " ").split() == (statement + "x").split()


def test_what_trimming_took_is_said() -> None:
    metadata = {"is_trimmed": "true", "dropped_events": "160"}
    found = timeline(trace(event("a", 0, 1), event("web", 0, 1, origin="runner", metadata=metadata)))
    runner, stripped = (details.details(found, place) for place in range(2))
    assert "160 events" in runner.notes[0] and "Trimming may have taken" in stripped.notes[0]
