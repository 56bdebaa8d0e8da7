"""What of queries, headers and bodies is recorded, and that no ignored key hides in it."""

import json
from urllib.parse import urlencode

import pytest
from records import event

from epsagon_fast.integrations.payloads import FORM, Body, query
from epsagon_fast.masking import Mask

KEYS = ["password"]
SECRET = json.dumps({"password": "SECRET"})


def recorded(data: bytes, content_type: str, ignored_keys: list[str]) -> str:
    body = Body(keep=True)
    body.add(data)
    text = body.text(content_type, ignored_keys)
    shown: str = json.loads(Mask(ignored_keys).event(event(body=text)))["resource"]["metadata"]["body"]
    return shown


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", FORM, f"{FORM}; charset=utf-8", ""])
@pytest.mark.parametrize(
    "data",
    [
        SECRET.encode(),
        b" [" + SECRET.encode() + b"]\n",
        urlencode({"payload": SECRET, "n": 1}).encode(),
        urlencode({"payload": json.dumps({"body": SECRET})}).encode(),
        b"password=SECRET&n=1",
        b"n=1&password=SECRET&password=SECRET",
        SECRET.encode() + SECRET.encode(),
        SECRET.encode()[:-1],
        b"password: SECRET",
        b"password:SECRET",
        b"user=1\npassword=SECRET",
        b"user=1;password=SECRET",
        b'<password a="1">SECRET</password>',
        b"x=" + b"x" * 2000 + b"&password=SECRET",
    ],
)
def test_no_body_shows_an_ignored_key_whatever_it_says_it_is(data: bytes, content_type: str) -> None:
    assert "SECRET" not in recorded(data, content_type, KEYS)


def test_form_and_json_are_told_apart_by_what_they_are() -> None:
    assert recorded(b"a=1&b=x+y&b=%7Bz", FORM, KEYS) == '{"a":"1","b":["x y","{z"]}'
    assert recorded(b"name=Ann O'Hara", FORM, []) == '{"name":"Ann O\'Hara"}'
    assert recorded(b"name=Ann O'Hara", FORM, KEYS) == "<15 bytes>"
    assert recorded(b'{"a": 1}', FORM, []) == recorded(b'{"a": 1}', FORM, KEYS) == '{"a": 1}'
    assert recorded(b"a=1", "text/plain", []) == "a=1"


def test_json_in_a_query_is_masked() -> None:
    shown = Mask(KEYS).event(event(query=query(urlencode({"filter": SECRET}))))
    assert b"SECRET" not in shown
