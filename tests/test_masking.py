"""Masking: the values of keys never show, whatever way a key is written and wherever it stands; other texts stay."""

import json
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import event, event_fields, exception_fields

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.masking import LooseMask, client_mask_of, mask
from epsagon_fast.masking.keys import DEFAULT_KEYS, Keys
from epsagon_fast.masking.pairs import NOT_SHOWN
from epsagon_fast.masking.search import _FOLDED, may_hold_plainly, search_for

SECRET = "S3CRET"
MASK = LooseMask(DEFAULT_KEYS)
JSON = '{"password": "S3CRET"}'
DEEP = json.dumps({"a": json.dumps([json.dumps({"Pass-Word": SECRET})])})

# Texts, and what of them is shown.
TEXTS = {
    # JSON, also with a byte order mark, with words around it, one a line, cut off, with names that are escaped.
    '{"a": 1, "API-Key": "S3CRET"}': '{"API-Key":"****","a":1}',
    "\ufeff" + JSON: '{"password":"****"}',
    f"got {JSON} from bob": 'got {"password":"****"} from bob',
    f'{{"a": 1}}\n{JSON}\n': '{"a": 1}\n{"password":"****"}\n',
    '{"password": 1, "password": "S3CRET"}': '{"password":"****"}',
    '{"a": {"password": "S3CRET"}, "a": 1}': '{"a":[{"password":"****"},1]}',
    '{"password": {"a": ["S3CRET': f'{{"password": {NOT_SHOWN}',
    '{"message":"{\\"password\\":\\"S3CRET': '{"message":"{\\"password\\":\\"****',
    'x {"\\u0070assword":"S3CRET"}': 'x {"password":"****"}',
    DEEP: '{"a":"[\\"{\\\\\\"Pass-Word\\\\\\":\\\\\\"****\\\\\\"}\\"]"}',
    # JSON as the name of a member: what reads it as a form takes it for one.
    '{"{\\"password\\": \\"S3CRET\\"}": ""}': '{"{\\"password\\":\\"****\\"}":"****"}',
    '{"password=S3CRET": 1, "password=S3CRETS": 2}': '{"password=****":"****"}',
    # A name and its value in a list of two, or as members.
    '[["Cookie", "S3CRET"], ["a", "b"]]': '[["Cookie","****"],["a","b"]]',
    '[{"name": "Authorization", "value": "S3CRET"}]': '[{"name":"Authorization","value":"****"}]',
    # Forms and URLs.
    "a=1&password=S3CRET;token=S3CRET;b=2": "a=1&password=****;token=****;b=2",
    "user[password]=S3CRET&password[]=S3CRET": "user[password]=****&password[]=****",
    "user%5Bpassword%5D=S3CRET&credit+card=S3CRET": "user%5Bpassword%5D=****&credit+card=****",
    "credit%20card=S3CRET&pass%77ord=S3CRET": "credit%20card=****&pass%77ord=****",
    "password=a;S3CRET&b&S3CRET": "password=****",
    f"payload={quote_plus(JSON)}&n=1": "payload=%7B%22password%22%3A%22****%22%7D&n=1",
    "a=" + quote_plus("b=" + quote_plus("token=S3CRET")): "a=b%3Dtoken%253D****",
    "https://bob:S3CRET@h/x?token=S3CRET&y=1#access_token=S3CRET": "https://****@h/x?token=****&y=1#access_token=****",
    "postgresql://app:S3CRET@db/shop": "postgresql://****@db/shop",
    # Headers, cookies, settings, Python, SQL, XML, YAML, prose.
    "Host: h\r\nAuthorization: Bearer S3CRET\r\nX: 1": "Host: h\r\nAuthorization: ****\r\nX: 1",
    "lang=de; session=S3CRET; theme=dark": "lang=de; session=****; theme=dark",
    "DB_PASSWORD=S3CRET\nUSER=bob": "DB_PASSWORD=****\nUSER=bob",
    "{'password': 'S3CRET', 'n': 1}": "{'password': '****', 'n': 1}",
    "SELECT * FROM t WHERE password = 'S3CRET' AND n = 3": "SELECT * FROM t WHERE password = '****' AND n = 3",
    '<u><password a="1">S3CRET</password></u>': '<u><password a="1">****</password></u>',
    "password: |\n  S3CRET\nuser: bob": "password: ****\nuser: bob",
    "my credit card: S3CRET": "my credit card: ****",
}
# Texts in which a name like a key is none.
PLAIN = [
    *("", "no secret", "the password is wrong", "12:30:11", "a@b.c", "http://h:80/x?q=1&page=2", "author=bob: hello"),
    *('{ "total_tokens": 5,  "authors": ["x"] }', '["password", "token", "x"]', "password=", "session:", "50% = half"),
    *("a=%41", '{"a": "password"}', "x < y > z", '{"password": ', "[1, 2", "://", "{'a': {'b': 1}}"),
]


def masked(keys: list[str], **metadata: str) -> dict[str, str]:
    result: dict[str, str] = orjson.loads(LooseMask(keys).event(event(**metadata)))["resource"]["metadata"]
    return result


@pytest.mark.parametrize(("text", "shown"), TEXTS.items(), ids=range(len(TEXTS)))
def test_a_value_is_hidden_in_any_text(text: str, shown: str) -> None:
    assert MASK.text(text) == shown
    assert MASK.text(shown) == shown
    # In an event, which the byte search sees first, and in JSON in it.
    for each in (text, json.dumps({"body": text}), json.dumps({"body": text}, ensure_ascii=False)):
        payload = MASK.event(event(text=each))
        assert SECRET.encode() not in payload
        assert MASK.event(payload) is payload


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_a_key_is_the_same_object(text: str) -> None:
    assert MASK.text(text) is text
    payload = event(text=text)
    assert MASK.event(payload) is payload


@pytest.mark.parametrize(
    ("key", "same", "other"),
    [
        (
            "api_key",
            ["api_key", "API-Key", "apiKey", "A p_i-kEY", "x[api_key]", "api-key[]", "a[b][apikey][0]"],
            ["key"],
        ),
        ("pin", ["PIN", "p_i_n"], ["pins", "spin", "pin.", "pin code"]),
        ("*pin", ["pin", "my_pin"], ["pins"]),
        ("card*", ["card", "Card-Number", "x[card_no]"], ["my card"]),
        ("a*b*c", ["abc", "aXbXc", "A_B_B_C"], ["acb", "ab"]),
        ("*", ["", "x"], []),
        ("a.b", ["A.B"], ["aXb", "a_b"]),
        ("Straße", ["STRASSE", "straße"], ["strase"]),
        ("КАРТА", ["карта"], []),
        ("password", ["pa\u017fsword"], ["passw0rd"]),
    ],
)
def test_a_key_means_names_as_people_write_them(key: str, same: list[str], other: list[str]) -> None:
    assert all(name in Keys([key]) for name in same)
    assert not any(name in Keys([key]) for name in other)
    assert masked([key], **dict.fromkeys([*same, *other], "4")) == {
        **dict.fromkeys(same, "****"),
        **dict.fromkeys(other, "4"),
    }


def test_usual_names_of_secrets_are_keys_by_default() -> None:
    names = (
        "password user_passwd db.pwd client_secret access_token X-Api-Key Authorization Set-Cookie sessionid csrftoken"
    )
    more = (
        "XSRF-TOKEN credit_card cardNumber AWS_SECRET_ACCESS_KEY private_key credentials PHPSESSID connect.sid id_jwt"
    )
    assert all(name in MASK.keys for name in f"{names} {more} http.request.header.authorization".split())
    plain = (
        "user author tokens total_tokens max_tokens status path route http.url db.statement passenger card sidebar key"
    )
    assert not any(name in MASK.keys for name in plain.split())


def test_options_say_which_keys_count_and_how() -> None:
    def hidden(*options: Any) -> set[str]:
        metadata = {"pin": "4", "P_IN": "4", "password": "4"}
        found = orjson.loads(mask(*options).event(event(**metadata)))["resource"]["metadata"]
        return {name for name, value in found.items() if value == "****"}

    assert hidden(("pin",), True, "loose") == {"pin", "P_IN", "password"}
    assert hidden(("pin",), False, "loose") == {"pin", "P_IN"}
    assert hidden((), True, "loose") == {"password"}
    assert hidden(("pin",), True, "exact") == {"pin"}
    assert hidden((), False, "loose") == hidden((), True, "exact") == set()


def test_exceptions_are_masked_too() -> None:
    url = "GET https://h/?token=S3CRET failed"
    fields = exception_fields(url, f"Traceback\n  password = S3CRET\nValueError: {url}")
    fields["additional_data"] = {"password": SECRET, "body": JSON, "n": "1"}
    fields["traceback"] = f"Traceback\n  login(password)\nValueError: {url}"
    shown = "GET https://h/?token=**** failed"
    found = orjson.loads(MASK.exception(orjson.dumps(fields)))
    assert found["additional_data"] == {"password": "****", "body": '{"password":"****"}', "n": "1"}
    assert found["message"] == shown
    assert found["traceback"] == f"Traceback\n  login(password)\nValueError: {shown}"
    whole = orjson.loads(MASK.event(orjson.dumps({**event_fields(), "exception": fields})))
    assert whole["exception"] == found


def test_attributes_that_keep_their_types_are_masked() -> None:
    fields = event_fields()
    fields["resource"]["metadata"] = {
        "http.request.header.cookie": ["a=S3CRET"],
        "url.full": "http://h/?sig=S3CRET",
        "n": 1,
    }
    found = orjson.loads(MASK.event(orjson.dumps(fields)))["resource"]["metadata"]
    assert found == {"http.request.header.cookie": "****", "url.full": "http://h/?sig=****", "n": 1}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"n":' + "9" * 5000 + "}", "x " + '{"a":' * 5000 + '"'])
def test_json_that_cannot_be_searched_is_left_out_and_says_so(text: str) -> None:
    assert MASK.text(text) == NOT_SHOWN or SECRET not in text
    assert MASK.text(json.dumps({"a": text})) != text


def test_texts_in_texts_are_read_to_a_bound() -> None:
    text = "token=S3CRET"
    for _ in range(40):
        text = quote_plus(f"a={text}") if len(text) < 2000 else json.dumps([text])
    assert SECRET not in MASK.text(text)


def test_long_texts_take_time_in_proportion_to_their_length() -> None:
    """Each of these would take minutes if a part of it were read again and again."""
    for piece in ("a", "a=", "a:", "[{", '{"', "%3D", "<a", "://", "a&", 'password="', "\\", " ", "password=;"):
        MASK.text(piece * (200_000 // len(piece)) + "=")


# The byte search.

names = st.sampled_from(
    ["password", "Pass_Word", "x[token]", "API Key", "pa\u017fsword", "user", "карта", "author", "sid"]
)
signs = st.sampled_from(
    ["=", ":", ">", '":"', "&", ";", ",", '","', "%3D", "%22", "\\", '"', "'", " ", "[", "{", "\n", "\\u0070"]
)
pieces = st.lists(names | signs | st.sampled_from(["S3CRET", "://u@h", "<", "+", "%20", "é", "x" * 20]), max_size=12)


@settings(max_examples=300)
@given(
    pieces.map("".join) | st.recursive(names, lambda inner: st.dictionaries(names, inner, max_size=2).map(json.dumps))
)
@example('["password", "S3CRET"]')
@example('{"a\\"password_x\\"b": 1}')
def test_the_search_misses_nothing_and_masking_twice_changes_nothing(text: str) -> None:
    for keys in (DEFAULT_KEYS, ("user", "карта", "*s*"), ("x",)):
        loose = LooseMask(keys)
        once = loose.text(text)
        assert loose.text(once) == once
        for payload in (event(text=text), event(text=json.dumps([text]))):
            decoded = orjson.loads(payload)
            if loose.runner(decoded):
                assert loose.may_change(payload)
                assert may_hold_plainly(loose.keys.fragments or [b""], payload)
            else:
                assert loose.event(payload) is payload


@given(names, st.sampled_from(["name", "Name", "key", "Key"]))
@example('x"password', "name")
def test_the_search_finds_a_name_that_is_a_value(name: str, says: str) -> None:
    forms = [[name, "S3CRET"], [[name, "S3CRET"]], {"value": "S3CRET", says: name}, {says: name, "value": "S3CRET"}]
    for form in forms:
        for payload in (event(x=form), event(x=json.dumps(form))):
            masked = MASK.event(payload)
            assert (b"S3CRET" not in masked) == MASK.runner(orjson.loads(payload)), payload


@pytest.mark.skipif(implementation("search") != COMPILED, reason="the plain search looks at each byte for each key")
def test_names_as_values_that_hold_each_other_are_read_instead_of_searched_again_and_again() -> None:
    # Each is a text in the one before it, and none ends: a search that followed each would take seconds for a megabyte.
    nested = ["name:" + chr(92) * escapes + '"' for escapes in range(200)]
    search = search_for(Keys(["password"]))
    assert not search("".join(nested[:3]).encode() + bytes(1000))
    assert search("".join(nested).encode() + bytes(100_000))


def test_what_no_search_can_find_is_read() -> None:
    assert all(search_for(Keys([key]))(event()) for key in ("", "*", "карта", "/", '"'))
    assert not search_for(Keys(["a/bcd"]))(event(x="1"))


def test_the_search_knows_each_character_that_folds_to_ascii() -> None:
    folded = {
        chr(code) for code in range(128, 0x110000) if any(c.isascii() and c.isalpha() for c in chr(code).casefold())
    }
    assert folded == {*_FOLDED}
    for each in _FOLDED:
        assert MASK.may_change(event(**{f"pa{each}": "1"}))


def test_what_clients_send_is_masked_loosely_whatever_the_options_say() -> None:
    class Options:
        ignored_keys = ("api_key",)
        default_ignored_keys = True
        masking = "exact"

    assert client_mask_of(Options()).text("API-Key=1&password=2") == "API-Key=****&password=2"
