"""What of queries, headers and bodies is recorded, and that no ignored key hides in it."""

import json
from urllib.parse import urlencode

import pytest
from records import event

from epsagon_fast.integrations.web.payloads import FORM, Payload, headers, query
from epsagon_fast.masking import Mask

KEYS = ["password"]
SECRET = json.dumps({"password": "SECRET"})


def recorded(data: bytes, content_type: str, ignored_keys: list[str]) -> str:
    body = Payload(keep=True)
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
    assert query(urlencode({"filter": SECRET, "n": 1}), KEYS) == '{"filter":"{\\"password\\":\\"****\\"}","n":"1"}'
    assert query("n=1&n=2&m=", KEYS) == '{"n":["1","2"],"m":""}'


def test_names_that_people_send_count_whatever_their_case_and_separators() -> None:
    keys = ["First Name", "password", "api_key"]
    sent = {"first_name": "SECRET", "Password": "SECRET", "API-Key": {"apikey": "SECRET"}, "keys": ["kept"]}
    assert json.loads(recorded(json.dumps(sent).encode(), "", keys)) == {
        **dict.fromkeys(sent, "****"),
        "keys": ["kept"],
    }
    assert query("API-KEY=k1&api_key=k2&api=k3", keys) == '{"API-KEY":"****","api":"k3","api_key":"****"}'
    pairs = [("Api-Key", "k1"), ("X-Api-Key", "k2"), ("PASSWORD", "k3"), ("Set_Cookie", "k4")]
    assert json.loads(headers(pairs, keys)) == {
        "api-key": "****",
        "x-api-key": "k2",
        "password": "****",
        "set_cookie": "****",
    }
