"""epsagon-go's masking: ignored keys never show, whatever way they are written, and nothing else changes."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import event, event_fields
from vectors import comparable, traces

from epsagon_fast.masking import ExactMask

# Keys that JSON can write in more than one way, and keys that hide in others.
KEYS = ["pan", "ä", "карта", "a/b", 'q"', "back\\slash", "tab\t", "", "\x7f", "pa", "😀"]


def masked(keys: list[str], **metadata: str) -> dict[str, str]:
    result: dict[str, str] = orjson.loads(ExactMask(keys).event(event(**metadata)))["resource"]["metadata"]
    return result


@pytest.mark.parametrize("case", [case for case in traces() if case.name.startswith("ignored_keys")], ids=str)
def test_metadata_is_masked_as_epsagon_go_did(case: Any) -> None:
    expected = [event["resource"]["metadata"] for event in comparable(case.expected_body)["events"]]
    mask = ExactMask(case.ignored_keys)
    body = {"events": [orjson.loads(mask.event(orjson.dumps(event))) for event in case.events]}
    ours = [
        event["resource"]["metadata"]
        for event in comparable(orjson.dumps({**body, "version": 0, "platform": 0}))["events"]
    ]
    for mine, theirs in zip(ours, expected, strict=True):
        theirs.pop("labels", None)
        # Row ints-exact.
        theirs.pop("nums", None)
        mine.pop("nums", None)
        assert mine == theirs


def test_an_event_without_the_keys_is_the_same_object() -> None:
    plain = event(user="bob", body='{"a": [1, {"b": 2}]}', path="C:\\\\users")
    assert ExactMask(["password"]).event(plain) is plain
    assert ExactMask([]).event(plain) is plain
    # Read, since the text holds the key; still nothing to mask.
    mentions = event(text='"password" is a word', Password="other", body='{"passwords": 1}')
    assert ExactMask(["password"]).event(mentions) is mentions


def test_what_is_masked_already_is_the_same_object() -> None:
    mask = ExactMask(["pan"])
    once = mask.event(event(pan="4111", body='{"pan": 1, "b": 2}'))
    assert mask.event(once) is once


def test_fields_outside_metadata_are_no_metadata() -> None:
    fields = event_fields(
        exception={"type": "pan", "message": "", "traceback": "", "time": 0, "additional_data": {"pan": "1"}}
    )
    encoded = orjson.dumps({**fields, "pan": "not ours"})
    assert ExactMask(["pan", "id", "name", "metadata", "resource"]).event(encoded) is encoded


def test_json_in_json_is_masked_once_only() -> None:
    inside = json.dumps({"pan": "4111"})
    result = masked(["pan"], once=inside, literal=json.dumps(inside), nested=json.dumps({"body": inside, "pan": 1}))
    assert result == {"once": '{"pan":"****"}', "literal": json.dumps(inside), "nested": result["nested"]}
    assert json.loads(result["nested"]) == {"body": inside, "pan": "****"}


def test_each_value_of_a_name_that_comes_twice_is_masked() -> None:
    """A parser would show the last one only, and the text that is kept shows both."""
    result = masked(["pan"], first='{"a":{"pan":4111},"a":1}', both='{"pan":4111,"pan":4112}')
    assert result == {"first": '{"a":[{"pan":"****"},1]}', "both": '{"pan":"****"}'}


def test_a_changed_text_is_compact_with_sorted_keys_and_an_unchanged_one_stays() -> None:
    result = masked(["pan"], a='{ "z": 1.50, "pan": 1, "é": "é" }', b='{ "z": 1.50,  "e": 1 }', pan="x")
    assert result == {"a": '{"pan":"****","z":1.5,"é":"é"}', "b": '{ "z": 1.50,  "e": 1 }', "pan": "****"}


def test_integers_keep_every_digit_beside_a_masked_key() -> None:
    big = 12345678901234567890123
    assert masked(["pan"], body=f'{{"n": {big}, "é": [{2**64 - 1}], "pan": 0}}')["body"] == (
        f'{{"n":{big},"pan":"****","\\u00e9":[{2**64 - 1}]}}'
    )


@pytest.mark.parametrize(
    "body", ["[" * 100_000, "[" * 5000 + '{"pan":4111}' + "]" * 5000, '{"n":' + "9" * 5000 + ',"pan":4111}']
)
def test_json_that_cannot_be_searched_does_not_show(body: str) -> None:
    assert masked(["pan"], body=body, pan="x")["body"] == "****"


def test_half_a_character_beside_a_masked_key_stays_half_a_character() -> None:
    assert masked(["pan"], body='{"a":"\\ud800","pan":1}')["body"] == '{"a":"\\ud800","pan":"****"}'


def test_labels_are_masked_like_metadata() -> None:
    mask = ExactMask(["pan"])
    assert mask.label("pan", 4111) == ("pan", "****")
    assert mask.label("card", '{"pan":4111}') == ("card", '{"pan":"****"}')
    assert mask.label("n", 4111) == ("n", 4111)


@pytest.mark.parametrize("value", [None, 1, "text", [], {"resource": None}, {"resource": {"metadata": []}}])
def test_what_is_no_event_is_left_alone(value: Any) -> None:
    assert not ExactMask(["pan"]).runner(value)


def test_an_event_that_must_be_read_and_is_not_json_is_an_error() -> None:
    with pytest.raises(ValueError):
        ExactMask(["pan"]).event(b'{"pan')


def escaped(text: str, how: int) -> str:
    """A JSON string of the text: as it is, ASCII only, or every character as \\u."""
    if how == 2:
        units = text.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)) + '"'
    return json.dumps(text, ensure_ascii=how == 1).replace("/", "\\/" if how == 1 else "/")


@given(st.sampled_from(KEYS), st.booleans(), st.integers(0, 2), st.integers(0, 2))
@example("pan", True, 0, 2)
@example("pan", True, 2, 0)
def test_no_escape_hides_a_key(key: str, nested: bool, inside: int, outside: int) -> None:
    if nested:
        text = f'{{"body":{escaped(f"[{{{escaped(key, inside)}:4111}}]", outside)}}}'
    else:
        text = f"{{{escaped(key, outside)}:{escaped('4111', inside)}}}"
    payload = f'{{"resource":{{"metadata":{text}}}}}'.encode()
    # With a key that is not there, so that one alone decides whether the event is read.
    result = orjson.loads(ExactMask([key, "absent"]).event(payload))["resource"]["metadata"]
    assert result == ({"body": orjson.dumps([{key: "****"}]).decode()} if nested else {key: "****"})


def values() -> st.SearchStrategy[Any]:
    keys = st.sampled_from([*KEYS, "other", "pans"])
    scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(["4111", "pan", '{"pan":1}', "x" * 99, ""])
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(
    st.dictionaries(st.sampled_from([*KEYS, "other"]), values().map(json.dumps) | st.text(max_size=9)),
    st.sets(st.sampled_from(KEYS)),
)
def test_masking_is_what_the_slow_way_gives(metadata: dict[str, str], keys: set[str]) -> None:
    payload = event(**metadata)
    mask = ExactMask(keys)
    expected = {key: _slow(key, value, keys) for key, value in metadata.items()}
    result = mask.event(payload)
    assert orjson.loads(result)["resource"]["metadata"] == expected
    assert (result is payload) == (expected == metadata)
    assert mask.event(result) is result


def _slow(key: str, value: str, keys: set[str]) -> str:
    if key in keys:
        return "****"
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    if not isinstance(decoded, dict | list):
        return value
    hidden = _hide(decoded, keys)
    if hidden == decoded:
        return value
    try:
        return orjson.dumps(hidden, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return json.dumps(hidden, sort_keys=True, separators=(",", ":"))


def _hide(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: "****" if key in keys else _hide(inner, keys) for key, inner in value.items()}
    return [_hide(inner, keys) for inner in value] if isinstance(value, list) else value
