"""W3C trace context in request headers, along the specification's own examples and rules."""

import pytest

from epsagon_fast.propagation import TraceContext, extract

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
VALID = f"00-{TRACE_ID}-{PARENT_ID}-01"


def test_context_comes_from_both_headers() -> None:
    found = extract({"traceparent": VALID, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"})
    assert found == TraceContext(TRACE_ID, PARENT_ID, 1, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")


def test_tracestate_may_be_missing() -> None:
    assert extract({"traceparent": VALID}) == (TRACE_ID, PARENT_ID, 1, "")


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT", "traceParent"])
def test_names_of_headers_have_no_case(name: str) -> None:
    assert extract({"Host": "h", name: VALID}) is not None


def test_space_around_a_value_is_none_of_it() -> None:
    assert extract({"traceparent": f" \t{VALID} ", "tracestate": " a=b\t"}) == (TRACE_ID, PARENT_ID, 1, "a=b")


def test_all_flags_are_kept() -> None:
    found = extract({"traceparent": VALID[:-2] + "fe"})
    assert found is not None and found.flags == 0xFE


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    for value in (f"cc{VALID[2:]}", f"cc{VALID[2:]}-what-the-future-will-be-like"):
        assert extract({"traceparent": value}) == (TRACE_ID, PARENT_ID, 1, "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        VALID[:-1],
        VALID + "-",
        VALID + "-00",
        VALID + "0",
        f"cc{VALID[2:]}.what",
        f"ff{VALID[2:]}",
        VALID.upper(),
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}g-{PARENT_ID}-01",
        f"00_{TRACE_ID}_{PARENT_ID}_01",
        f"{VALID},{VALID}",
        VALID + "\n",
        VALID.replace("4", "\N{FULLWIDTH DIGIT FOUR}"),
    ],
)
def test_what_is_no_traceparent_gives_no_context(value: str) -> None:
    assert extract({"traceparent": value, "tracestate": "a=b"}) is None


def test_no_headers_give_no_context() -> None:
    assert extract({}) is None
