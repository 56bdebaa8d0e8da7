"""The page in which a forked child sees whether an inherited trace is still open."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rings import exit_code, in_child

from epsagon_fast.queue import beacon
from epsagon_fast.queue.beacon import PurePage
from epsagon_fast.queue.layout import PLACES

PAGES = [PurePage, *({beacon.Page} - {PurePage})]
IDS = [bytes([number]) * 16 for number in (1, 2, 3)]


@pytest.mark.parametrize("page_type", PAGES)
def test_child_sees_which_traces_are_open(page_type: Any) -> None:
    page = page_type()
    first, second = (page.light(trace_id) for trace_id in IDS[:2])

    def child() -> None:
        assert page.shows(first, IDS[0]) and page.shows(second, IDS[1])
        page.put_out(first, IDS[0])

    assert exit_code(in_child(child)) == 0
    assert not page.shows(first, IDS[0]) and page.shows(second, IDS[1])
    page.put_out(second, IDS[1])
    assert not page.shows(second, IDS[1])


@pytest.mark.parametrize("page_type", PAGES)
def test_place_of_an_ended_trace_is_that_of_the_next_one(page_type: Any) -> None:
    page = page_type()
    place = page.light(IDS[0])
    page.put_out(place, IDS[0])
    page.put_out(place, IDS[0])
    assert page.light(IDS[1]) == place
    # Whoever ends the first trace once more does not end the second one.
    page.put_out(place, IDS[0])
    assert page.shows(place, IDS[1]) and not page.shows(place, IDS[0])
    assert page.light(IDS[2]) != place


@pytest.mark.parametrize("page_type", PAGES)
def test_trace_without_a_place_may_be_open(page_type: Any) -> None:
    page = page_type()
    places = [page.light(IDS[0]) for _ in range(PLACES)]
    assert sorted(places) == [*range(PLACES)]
    assert places[-1] == 0 and page.shows(0, IDS[0])
    page.put_out(0, IDS[0])
    assert page.light(IDS[0]) == 0
    page.put_out(places[0], IDS[0])
    assert page.light(IDS[0]) == places[0]


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["light", "shows", "put_out"]), st.integers(0, PLACES - 1), st.sampled_from(IDS)),
        max_size=40,
    )
)
def test_both_pages_do_the_same(calls: list[tuple[str, int, bytes]]) -> None:
    pages: list[Any] = [page_type() for page_type in PAGES]
    lit = [0]
    for name, chosen, trace_id in calls:
        place = lit[chosen % len(lit)]
        arguments = (trace_id,) if name == "light" else (place, trace_id)
        [answer] = {getattr(page, name)(*arguments) for page in pages}
        if name == "light":
            lit.append(answer)


@pytest.mark.skipif(beacon.Page is PurePage, reason="the reference has a page of the standard library")
def test_compiled_page_takes_nothing_else() -> None:
    page: Any = beacon.Page()
    for wrong in (b"short", bytes(17), "x" * 16, None):
        for call in (lambda wrong=wrong: page.light(wrong), lambda wrong=wrong: page.put_out(1, wrong)):
            with pytest.raises(ValueError, match="trace_id must be 16 bytes"):
                call()
    for place in (-1, PLACES, 2**31 - 1):
        assert page.shows(place, IDS[0])
        page.put_out(place, IDS[0])
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            copied(page)
