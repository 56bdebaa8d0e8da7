"""What of queries, headers and bodies is recorded, and that no ignored key hides in it."""

import json
from urllib.parse import urlencode

import pytest
from records import event

from epsagon_fast.integrations.web.payloads import FORM, Payload, headers, query
from epsagon_fast.masking import LooseMask

KEYS = ["password"]
SECRET = json.dumps({"password": "SECRET"})


def recorded(data: bytes, content_type: str, ignored_keys: list[str]) -> str:
    body = Payload(keep=True)
    body.add(data)
    mask = LooseMask(ignored_keys)
    text = body.text(content_type, mask)
    # What the collector does then changes nothing more.
    payload = event(body=text)
    assert mask.event(payload) is payload
    return text


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
        b"\xef\xbb\xbf" + SECRET.encode(),
        b"user[password]=SECRET&password[]=SECRET",
        b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\nSECRET\r\n--x--',
        SECRET.encode()[:-1],
        b"password: SECRET",
        b"password:SECRET",
        b"user=1\npassword=SECRET",
        b"user=1;password=SECRET",
        b'<password a="1">SECRET</password>',
        b"x=" + b"x" * 2000 + b"&password=SECRET",
        SECRET.encode("utf-16"),
        SECRET.encode("utf-16-be"),
        SECRET.encode("utf-32-le"),
    ],
)
def test_no_body_shows_an_ignored_key_whatever_it_says_it_is(data: bytes, content_type: str) -> None:
    assert "SECRET" not in recorded(data, content_type, KEYS).replace("\0", "")


def test_form_and_json_are_told_apart_by_what_they_are() -> None:
    assert recorded(b"a=1&b=x+y&b=%7Bz", FORM, KEYS) == '{"a":"1","b":["x y","{z"]}'
    assert recorded(b"name=Ann O'Hara", FORM, KEYS) == '{"name":"Ann O\'Hara"}'
    assert recorded(b"a=1;b=2&c=x;y", FORM, KEYS) == '{"a":"1","b":"2","c":"x;y"}'
    assert recorded(b'{"a": 1}', FORM, []) == recorded(b'{"a": 1}', FORM, KEYS) == '{"a": 1}'
    assert recorded(b"a=1", "text/plain", KEYS) == "a=1"


def test_a_text_of_another_kind_is_shown_unless_it_holds_a_key() -> None:
    assert recorded(b"<p>Hello bob, 3 passwords</p>", "text/html", KEYS) == "<p>Hello bob, 3 passwords</p>"
    for text in (b"your Pass-Word is SECRET", b"key of a.password", b"pass word", b"p%61ssword SECRET"):
        assert recorded(text, "text/plain", KEYS) == f"(not shown: {len(text)} bytes that may hold a secret)"
        assert recorded(text, "text/plain", []) == text.decode()


def test_json_in_a_query_is_masked() -> None:
    mask = LooseMask(KEYS)
    assert query(urlencode({"filter": SECRET, "n": 1}), mask) == '{"filter":"{\\"password\\":\\"****\\"}","n":"1"}'
    assert query("n=1&n=2&m=", mask) == '{"n":["1","2"],"m":""}'


def test_names_that_people_send_count_whatever_their_case_and_separators() -> None:
    keys = ["First Name", "password", "api_key"]
    sent = {"first_name": "SECRET", "Password": "SECRET", "API-Key": {"apikey": "SECRET"}, "keys": ["kept"]}
    assert json.loads(recorded(json.dumps(sent).encode(), "", keys)) == {
        **dict.fromkeys(sent, "****"),
        "keys": ["kept"],
    }
    assert query("API-KEY=k1&api_key=k2&api=k3", LooseMask(keys)) == '{"API-KEY":"****","api":"k3","api_key":"****"}'
    pairs = [("Api-Key", "k1"), ("X-Api-Key", "k2"), ("PASSWORD", "k3"), ("Set_Cookie", "k4")]
    assert json.loads(headers(pairs, LooseMask(keys))) == {
        "api-key": "****",
        "x-api-key": "k2",
        "password": "****",
        "set_cookie": "****",
    }
