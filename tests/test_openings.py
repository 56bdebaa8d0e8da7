"""An OPEN is decoded in two parts where that is the same as decoding it as a whole."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import CONFIG, OPENED_AT, TRACE_ID, opened, own_runner
from strategies import json_shaped

from epsagon_fast.collector.assembling import openings
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.payloads import BROKEN, object_in, object_of
from epsagon_fast.collector.assembling.terms import mask_in, terms_of
from epsagon_fast.protocol import Kind, Record

CONFIGS = [
    CONFIG,
    {**CONFIG, "ignored_keys": ["pin"]},
    {**CONFIG, "resource_attributes": {"a": "b", "runner": 1}},
    {},
    [],
]
RUNNERS = [own_runner(pin="1234"), None, [], {"config": CONFIG, "runner": {}}, {"deep": ',"runner":'}]


def as_a_whole(payload: bytes) -> Any:
    decoded = object_of(payload)
    terms = terms_of(orjson.dumps(object_in(decoded, "config")), decoded["platform"])
    return terms, decoded["runner"], decoded["opened_at"]


def outcome(read: Any, payload: bytes) -> Any:
    try:
        return tuple(read(payload))
    except BROKEN:
        return None


# Members as they stand in a payload: those of an OPEN, and others, some of them twice.
members = st.one_of(
    st.sampled_from(CONFIGS).map(lambda value: ("config", value)),
    st.sampled_from(RUNNERS).map(lambda value: ("runner", value)),
    st.just(("platform", "python 3.11")),
    st.just(("opened_at", OPENED_AT)),
    st.tuples(st.sampled_from(["runner", "more", ""]), json_shaped()),
)


@settings(max_examples=80)
@given(st.lists(members, max_size=3), st.sampled_from(CONFIGS), st.sampled_from(RUNNERS), st.integers(0, 4))
@example([("config", CONFIGS[1])], CONFIG, None, 4)
def test_both_ways_say_the_same(more: list[tuple[str, Any]], config: Any, runner: Any, place: int) -> None:
    own = [("config", config), ("platform", "python 3.11"), ("runner", runner), ("opened_at", OPENED_AT)]
    try:
        parts = [orjson.dumps(name) + b":" + orjson.dumps(value) for name, value in [*own[:place], *more, *own[place:]]]
    except TypeError:
        return
    payload = b"{" + b",".join(parts) + b"}"
    for text in (payload, payload[:-1], payload + b"}", payload.replace(b'"runner"', b'"runner" ')):
        assert outcome(openings.opening_of, text) == outcome(as_a_whole, text)
        if (mask := openings.mask_of(text)) is not None and (said := outcome(as_a_whole, text)):
            assert mask is mask_in(said[0].config)
            assert not mask.runner(said[1])


@pytest.mark.parametrize("escaped", ["config", r"c\u006fnfig", r"\u0063onfig"])
def test_the_last_config_says_what_is_ignored(escaped: str) -> None:
    payload = opened(own_runner(pin="1234")).payload
    assert openings.mask_of(payload) is not None
    config = orjson.dumps({**CONFIG, "ignored_keys": ["pin"]}).decode()
    payload = payload[:-1] + f',"{escaped}":{config}}}'.encode()
    assert openings.mask_of(payload) is None
    assert b"1234" not in Masks().opened(Record(Kind.OPEN, 0, 0, TRACE_ID, payload)).payload


def test_a_config_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [opened(own_runner(shop=str(number)), app_name="decoded once").payload for number in range(3)]
    openings.opening_of(payloads[0])
    read: list[bytes] = []
    monkeypatch.setattr(openings, "object_of", lambda payload: read.append(payload) or object_of(payload))
    assert all(openings.mask_of(payload) is not None for payload in payloads)
    found = [openings.opening_of(payload) for payload in payloads]
    assert [each.runner["resource"]["metadata"]["shop"] for each in found] == ["0", "1", "2"]
    assert found[0].terms is found[2].terms
    assert not any(b"decoded once" in each for each in read)
