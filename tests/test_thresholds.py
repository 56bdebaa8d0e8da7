"""Rejection thresholds, and what a tracestate says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsagon_fast import thresholds
from epsagon_fast.propagation import extract
from epsagon_fast.thresholds import ALL, digits_of, passed, randomness_of, threshold_of, weight_of, with_threshold

SHARED_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
# As W3C Trace Context allows them, and not OpenTelemetry's own.
MEMBERS = st.lists(st.from_regex(r"[a-np-z][a-z0-9]{0,5}=[!-+\--<>-~]{1,8}", fullmatch=True), max_size=40)
PARTS = st.lists(st.sampled_from(["th:8", "rv:0123456789abcd", "x:y", "th:", "th:zz", "p:8"]), max_size=6)


# The table of the specification, for one in N at the precision that it recommends.
@pytest.mark.parametrize(
    ("one_in", "digits"),
    [(1, "0"), (2, "8"), (3, "aaab"), (5, "cccd"), (10, "e666"), (16, "f"), (100, "fd70a"), (1000, "ffbe77")],
)
def test_threshold_of_a_rate_is_the_one_of_the_specification(one_in: int, digits: str) -> None:
    assert digits_of(threshold_of(1 / one_in)) == digits
    assert weight_of(threshold_of(1 / one_in)) == pytest.approx(one_in, rel=1e-4)


@given(st.floats(1e-16, 1.0), st.floats(1e-16, 1.0))
def test_higher_rate_has_no_higher_threshold_and_none_is_out_of_bounds(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= threshold_of(high) <= threshold_of(low) < ALL
    assert weight_of(threshold_of(one)) == pytest.approx(1 / one, rel=1e-3, abs=1e-3) or one < 1e-12


def test_rate_of_nothing_rejects_everything() -> None:
    assert threshold_of(0.0) == ALL
    assert randomness_of("f" * 32) < ALL


def test_randomness_is_the_end_of_the_shared_id_unless_the_caller_says_another() -> None:
    assert randomness_of(SHARED_ID) == 0xCE929D0E0E4736
    assert randomness_of(SHARED_ID, "a=b,ot=th:8;rv:0123456789abcd") == 0x0123456789ABCD
    assert randomness_of(SHARED_ID, "a=b,ot=rv:1") == 0xCE929D0E0E4736


@pytest.mark.parametrize("state", ["", "a=th:8", "ot=th:", "ot=th:123456789012345", "ot=th:0x8", "ot=th:F", "xot=th:8"])
def test_no_threshold_is_read_where_none_is_said(state: str) -> None:
    assert passed(state) is None


@given(MEMBERS, PARTS, st.integers(0, ALL - 1), st.integers(0, 40))
def test_tracestate_says_a_threshold_and_keeps_what_others_say(
    members: list[str], parts: list[str], threshold: int, place: int
) -> None:
    state = ",".join([*members[:place], *(["ot=" + ";".join(parts)] if parts else []), *members[place:]])
    told = with_threshold(state, threshold)
    assert passed(told) == threshold
    assert told.split(",")[1:] == members[: thresholds.MAX_MEMBERS - 1]
    for key in ("rv:", "x:"):
        assert (key in told.split(",")[0]) == any(part.startswith(key) for part in parts)
    context = extract({"traceparent": f"00-{SHARED_ID}-00f067aa0ba902b7-01", "tracestate": told})
    assert context is not None
    assert context.tracestate == told
    assert passed(with_threshold(told, None)) is None


def test_tracestate_that_says_too_much_for_one_value_keeps_what_sampling_needs() -> None:
    told = with_threshold(f"ot=rv:{'1' * 14};x:{'y' * 240}", 0)
    assert told == f"ot=th:0;rv:{'1' * 14}"
    # A receiver drops the whole tracestate if one value is too long.
    assert with_threshold(f"ot=rv:{'1' * 250}", 0) == "ot=th:0"
