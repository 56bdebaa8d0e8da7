"""Masking: the values of keys never show, whatever way a key is written and wherever it stands; other texts stay."""

import itertools
import json
import sys
from traceback import format_exception
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import event, event_fields, exception_fields

from epsagon_fast.compiled import COMPILED, REFERENCE, implementation
from epsagon_fast.masking import LooseMask, client_mask_of, mask
from epsagon_fast.masking.keys import DEFAULT_KEYS, Keys, normalized
from epsagon_fast.masking.pairs import NOT_SHOWN
from epsagon_fast.masking.search import may_hold_plainly, search_for

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
    # JSON as a string, encoded twice or between other words.
    json.dumps('{"name": "token", "value": "S3CRET"}'): '"{\\"name\\":\\"token\\",\\"value\\":\\"****\\"}"',
    f"got {json.dumps(json.dumps(['token', SECRET]))} from": 'got "[\\"token\\",\\"****\\"]" from',
    # What pydantic says of an input.
    '[{"loc": ["body", "password"], "input": "S3CRET"}]': '[{"input":"****","loc":["body","password"]}]',
    # JSON as the name of a member: what reads it as a form takes it for one.
    '{"{\\"password\\": \\"S3CRET\\"}": ""}': '{"{\\"password\\":\\"****\\"}":"****"}',
    '{"password=S3CRET": 1, "password=S3CRETS": 2}': '{"password=****":"****"}',
    # A name and its value in a list of two, or as members.
    '[["Cookie", "S3CRET"], ["a", "b"]]': '[["Cookie","****"],["a","b"]]',
    '[{"name": "Authorization", "value": "S3CRET"}]': '[{"name":"Authorization","value":"****"}]',
    # Forms and URLs.
    "a=1&password=S3CRET;token=S3CRET;b=2": "a=1&password=****;token=****;b=2",
    # A name as a subscript.
    'os.environ["API_TOKEN"] = "S3CRET"; n = 1': 'os.environ["API_TOKEN"] = "****"; n = 1',
    "$config['db']['password'] = 'S3CRET'; $n = 1": "$config['db']['password'] = '****'; $n = 1",
    'config["password"] == S3CRET': 'config["password"] == ****',
    'a["token"] != "S3CRET" or b["a"]["token"]="S3CRET"': 'a["token"] != "****" or b["a"]["token"]="****"',
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
    # SQL: quotes in literals, operators, lists of columns, and what PostgreSQL and SQLAlchemy say of them.
    "SET password = 'S3''CRET', n = 'a'": "SET password = '****', n = 'a'",
    "SET password = '''S3CRET'''": "SET password = '****'",
    "WHERE password <> 'S3CRET' AND n <> 3": "WHERE password <> '****' AND n <> 3",
    "WHERE u.token != 'S3CRET'": "WHERE u.token != '****'",
    "WHERE `token` = N'S3CRET' AND [pwd] ~ 'S3CRET'": "WHERE `token` = N'****' AND [pwd] ~ '****'",
    "WHERE token LIKE '%S3CRET%' OR token NOT LIKE 'S3CRET'": "WHERE token LIKE '****' OR token NOT LIKE '****'",
    "WHERE token BETWEEN 'S3CRET' AND 'S3CRET' AND n = 1": "WHERE token BETWEEN '****' AND n = 1",
    "WHERE token IS NOT DISTINCT FROM 'S3CRET'": "WHERE token IS NOT DISTINCT FROM '****'",
    "WHERE token IN ('S3CRET', 'S3CRET') AND n IN (1)": "WHERE token IN **** AND n IN (1)",
    "WHERE token IN (SELECT 'S3CRET": f"WHERE token IN {NOT_SHOWN}",
    "SET password = crypt('S3CRET', gen_salt('bf')), n = 1": "SET password = ****, n = 1",
    "CREATE USER x IDENTIFIED BY 'S3CRET'": "CREATE USER x IDENTIFIED BY '****'",
    "CREATE USER x IDENTIFIED WITH sha BY 'S3CRET'": "CREATE USER x IDENTIFIED WITH sha BY '****'",
    "ALTER ROLE x WITH LOGIN PASSWORD 'S3CRET' VALID": "ALTER ROLE x WITH LOGIN PASSWORD '****' VALID",
    "SET PASSWORD FOR bob = PASSWORD('S3CRET')": "SET PASSWORD FOR bob = ****",
    "SET PASSWORD FOR 'bob'@'h' = 'S3CRET'": "SET PASSWORD FOR 'bob'@'h' = '****'",
    'SET PASSWORD FOR "bob"="S3CRET"': 'SET PASSWORD FOR "bob"="****"',
    "a: b\n? password\n: S3CRET\nc: d": "a: b\n? password\n: ****\nc: d",
    "- ? 'pass word'\n  : 'S3CRET'\n  ? n\n  : 1": "- ? 'pass word'\n  : '****'\n  ? n\n  : 1",
    "AccountName=x;AccountKey=S3CRET==;Suffix=y": "AccountName=x;AccountKey=****;Suffix=y",
    "INSERT INTO t (a, password, b) VALUES ('x', 'S3''CRET', 3), (now(), 'S3CRET', NULL)": (
        "INSERT INTO t (a, password, b) VALUES ('x', '****', 3), (now(), '****', NULL)"
    ),
    'INSERT INTO t("token", `pwd`) VALUES (S3CRET, crypt("S3CRET", 1)) RETURNING id': (
        'INSERT INTO t("token", `pwd`) VALUES (****, ****) RETURNING id'
    ),
    "INSERT INTO t (token) VALUES ('S3CRET\\', 'S3CRET": f"INSERT INTO t (token) VALUES {NOT_SHOWN}",
    "Key (email, token)=(a@b, S3CRET) already exists.": "Key (email, token)=(****) already exists.",
    "Key (token)=(S3CRET": f"Key (token)={NOT_SHOWN}",
    "Key (lower(token::text), id)=(S3CRET, 1) exists.": "Key (lower(token::text), id)=(****) exists.",
    "WHERE lower(u.token) = 'S3CRET' AND n = 1": "WHERE lower(u.token) = '****' AND n = 1",
    'WHERE UPPER("t"."token"::text) = UPPER(\'S3CRET\') AND n = 1': (
        'WHERE UPPER("t"."token"::text) = UPPER**** AND n = 1'
    ),
    "WHERE CAST(token AS text) = 'S3CRET' AND n = 1": "WHERE CAST(token AS text) = '****' AND n = 1",
    "WHERE token::varchar(20) = 'S3CRET' OR token::text LIKE 'S3CRET' AND n = 1": (
        "WHERE token::varchar(20) = '****' OR token::text LIKE '****' AND n = 1"
    ),
    "[SQL: INSERT INTO t (token) VALUES (?)]\n[parameters: ('S3CRET',)]\n(see x)": (
        "[SQL: INSERT INTO t (token) VALUES (?)]\n[parameters: ****]\n(see x)"
    ),
    # More than one word, and blanks of all kinds.
    "password = S3CRET horse S3CRET": "password = ****",
    "user=bob password=S3CRET horse, S3CRET status=ok": "user=bob password=**** status=ok",
    "password=S3CRET horse\nuser: bob": "password=****\nuser: bob",
    "password=\u00a0S3CRET": "password=\u00a0****",
    "password\u2003=\u2003S3CRET x": "password\u2003=\u2003****",
    "password=\n  S3CRET\nuser=bob": "password=\n  ****\nuser=bob",
    "{'password': S3CRET horse, 'n': 1}": "{'password': ****, 'n': 1}",
    "password=S3<CRET> x": "password=****",
    "password: (S3) S3CRET": "password: ****",
    "password:\n- S3CRET\n- S3CRET\nuser: bob": "password:****\nuser: bob",
    "private_key=-----BEGIN KEY-----\nS3CRET\n-----END KEY-----\nuser=bob": "private_key=****\nuser=bob",
    # A name and its value beside each other: YAML's lists, settings, tuples.
    "- name: DB_PASSWORD\n  value: S3CRET\n- name: X\n  value: y": (
        "- name: DB_PASSWORD\n  value: ****\n- name: X\n  value: y"
    ),
    "  - name: 'TOKEN'\n    value: S3CRET\n  - name: X": "  - name: 'TOKEN'\n    value: ****\n  - name: X",
    "password: |\n  - S3CRET\nuser: bob": "password: ****\nuser: bob",
    'name="password" value="S3CRET" x=1': 'name="password" value="****" x=1',
    "[(b'authorization', b'S3CRET'), (b'x', b'1')]": "[(b'authorization', b'****'), (b'x', b'1')]",
    "MultiDict([('password', 'S3CRET')])": "MultiDict([('password', '****')])",
    # Literals of several lines, and joined ones.
    "password = '''S3CRET'S3CRET''' x": "password = '****' x",
    'f(password: """S3 "S3CRET" S3""") { id }': 'f(password: "****") { id }',
    "WHERE token LIKE '%' || 'S3CRET' AND n = 'y'": "WHERE token LIKE '****' AND n = 'y'",
    # What pydantic says of an input.
    "1 error\nuser.password\n  Too short [type=short, input_value='S3CRET', input_type=str]": (
        "1 error\nuser.password\n  Too short [type=short, input_value='****', input_type=str]"
    ),
    "{'loc': ('body', 'password'), 'msg': 'Too short', 'input': 'S3CRET', 'ctx': {}}": (
        "{'loc': ('body', 'password'), 'msg': 'Too short', 'input': '****', 'ctx': {}}"
    ),
    # XML and HTML.
    "<entry><key>password</key> <value><s>S3CRET</s></value></entry>": (
        "<entry><key>password</key> <value>****</value></entry>"
    ),
    '<string name="token">S3CRET</string><string name="x">y</string>': (
        '<string name="token">****</string><string name="x">y</string>'
    ),
    "<password><![CDATA[</password>S3CRET]]></password><n>1</n>": "<password>****</password><n>1</n>",
    "<password><a>x</a><b>S3CRET</b></password>": "<password>****</password>",
    '<input name="password" value="S3CRET"> <p>x</p>': '<input name="password" value="****"> <p>x</p>',
    "<input value='S3CRET' type=text name=password>": "<input value='****' type=text name=password>",
    '<add key="Api-Key" value="S3CRET"/>x': '<add key="Api-Key" value="****"/>x',
    '<meta name="csrf-token" content="S3CRET">': '<meta name="csrf-token" content="****">',
    '<s name="token">S3CRET</s><s name="n">1</s>': '<s name="token">****</s><s name="n">1</s>',
    '<a href="/x?token=S3CRET">x</a>': '<a href="/x?token=****">x</a>',
    # Letters in other forms, and what has no width.
    "pass\u200bword=S3CRET": "pass\u200bword=****",
    "\uff50\uff41\uff53\uff53word: S3CRET": "\uff50\uff41\uff53\uff53word: ****",
    '{"pass\\u00adword": "S3CRET"}': '{"pass\u00adword":"****"}',
    '{"\\ud835\\udc29assword": "S3CRET"}': '{"\U0001d429assword":"****"}',
    "%EF%BD%90assword=S3CRET": "%EF%BD%90assword=****",
    # Command lines.
    "mysql --password S3CRET -u root": "mysql --password **** -u root",
    "curl --api-key 'S3CRET S3CRET' http://h": "curl --api-key '****' http://h",
    "run\n--token S3CRET\n-x": "run\n--token ****\n-x",
    "java -storepass x -password S3CRET": "java -storepass x -password ****",
    '["mysql", "--password", "S3CRET", "shop"]': '["mysql","--password","****","shop"]',
    "run(['mysql', '--password', 'S3CRET', 'shop'])": "run(['mysql', '--password', '****', 'shop'])",
    # Users in URLs with signs that should be encoded.
    "redis://:S3/CR#ET?S3CRET@cache/0": "redis://****@cache/0",
    "postgresql://app:S3/CRET@db/shop?x=1": "postgresql://****@db/shop?x=1",
    '{"url":"redis:\\/\\/:S3CRET@cache': '{"url":"redis:\\/\\/****@cache',
}
# What texts are made of that must not be read again and again.
PIECES = [
    *(
        "a",
        "a=",
        "a:",
        "[{",
        '{"',
        "%3D",
        "<a",
        "://",
        "a&",
        'password="',
        "\\",
        " ",
        "password=;",
        "=",
        ":",
        "=:",
        ": =",
    ),
    *(
        "[[",
        "{",
        "(",
        "'",
        " '",
        '"',
        "-a",
        "-token.",
        "--token ",
        "%25=",
        "token",
        "token:",
        "token='",
        '"token":',
        "é",
    ),
    *(
        "VALUES (",
        "(token) VALUES ('",
        "token IN (",
        "token LIKE '",
        "' AND '",
        "[SQL: ",
        "[parameters: (",
        "Key (token)=(",
    ),
    *(
        "<token>",
        "</token",
        '<x id="token">',
        "<a \"'",
        "<![CDATA[",
        "-----BEGIN ",
        "token=\n",
        "token= ",
        "u:p/@",
        "\u0300",
    ),
    *(
        "input_value=",
        "name:token value=",
        "<key>token</key>",
        "('token', '",
        "token='''",
        "' || '",
        "token::a",
        '"{\\',
    ),
    *("://:", "://u@", "password was ", "\u200b", "\\ud835", "name:", "&a", ";a", "a.", "[ ", "[\\n", '["'),
]
# Texts in which a name like a key is none.
PLAIN = [
    *("", "no secret", "the password is wrong", "12:30:11", "a@b.c", "http://h:80/x?q=1&page=2", "author=bob: hello"),
    *('{ "total_tokens": 5,  "authors": ["x"] }', '["password", "token", "x"]', "password=", "session:", "50% = half"),
    *("http://h:80/@bob", "https://h/@bob/x", "http://[::1]:80/@x", "see https://h/p and a@b.c", "http://h/a:b/x"),
    *("the password was wrong: try again", "invalid token, expired", "Unexpected token '<' at 3", "author's session"),
    *("kind IN ('token', 'x')", "f('token', 'x')", "('password', 'email', 'x')", "name: user\nvalue: y"),
    *("password = :password AND n = :n", "WHERE token = @p0 AND n = 1", "use --password-stdin. See docs"),
    *(
        "query Q($token: String!) { me(token: $token) { id } }",
        "1 error\nage\n  Bad [type=x, input_value='x', input_type=str]",
    ),
    *("length(token) = 8", "WHERE lower(token) = %s", "std::token::x", 'x "{" y "[" z: 1', 'a "{\\"b\\": 1}" c'),
    *("the token's length (3)", "INSERT INTO t (password) VALUES (?), (%s)", "WHERE token IN (?, ?)", "n IN (1, 2)"),
    *("WHERE password = %s AND n = 'x'", "password = $1", "SELECT token FROM t", "reset-password -- see the token"),
    *("the following arguments are required: --password, --user", "a - token b", '["--password"]', "--tokens 5"),
    *('<input type="password" name="x">', "<p>password</p>", "<password/>", "café: a", "emoji \U0001f600: x", "x's: y"),
    # What is said of a name that has no value: a schema, a form's field.
    *('{"name": "password", "type": "string"}', '[{"in": "header", "name": "Authorization"}, {"key": "token"}]'),
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
        ("password", ["pa\u017fsword", "p\u200bass\u00adword", "\uff30\uff21\uff33\uff33word"], ["passw0rd"]),
        ("t\u00e9l\u00e9phone", ["T\u00c9L\u00c9PHONE"], ["telephone"]),
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


class InvalidToken(Exception):
    """Its name looks like that of a secret."""


def test_messages_of_exceptions_that_led_to_this_one_are_masked_and_source_lines_are_not() -> None:
    told = "GET https://h/?token=S3CRET failed\npassword: S3CRET"
    try:
        try:
            raise ValueError(told)
        except ValueError as error:
            password = error
            raise InvalidToken("of bob") from password
    except InvalidToken as error:
        traceback = "".join(format_exception(error))
    fields = exception_fields("of bob", traceback)
    for payload in (MASK.exception(orjson.dumps(fields)), MASK.event(orjson.dumps(event_fields(exception=fields)))):
        found = orjson.loads(payload)
        shown = found.get("exception", found)
        assert shown["message"] == "of bob"
        lines = shown["traceback"].splitlines()
        assert "ValueError: GET https://h/?token=**** failed" in lines
        assert "password: ****" in lines
        assert '    raise InvalidToken("of bob") from password' in [f"    {line.strip()}" for line in lines]
        assert lines[-1].endswith("InvalidToken: of bob")
        assert MASK.exception(orjson.dumps(shown)) == orjson.dumps(shown)


def test_what_a_resource_is_called_is_masked() -> None:
    fields = event_fields()
    fields["resource"] |= {"name": "https://u:S3CRET@h/x?token=S3CRET", "operation": "SET password = 'S3CRET'"}
    resource = orjson.loads(MASK.event(orjson.dumps(fields)))["resource"]
    assert (resource["name"], resource["operation"]) == ("https://****@h/x?token=****", "SET password = '****'")


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
    for piece in PIECES:
        for text in (
            piece * (50_000 // len(piece)),
            *(piece * 2_500 + other * 2_500 for other in ("://", "-a", "=")),
        ):
            MASK.text(f"token {text}=")
            MASK.may_change(text.encode())
            may_hold_plainly([b"x"], text.encode())


def nested_urls(depth: int) -> str:
    """JSON and URLs in each other, of which each text is read in two ways."""
    text = "token=S3CRET"
    for _ in range(depth):
        text = f'x [["{quote_plus(text)}"]]'
    return text


def test_pieces_that_are_no_json_do_not_count_the_lines_before_them() -> None:
    """The errors of Python's decoder do, from the beginning of the text for each of them."""

    def note(_: Any, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in ("count", "rfind"):
            lengths.append(len(called.__self__))

    lengths: list[int] = []
    sys.setprofile(note)
    try:
        MASK.text("token " + '{"a":^}' * 100)
    finally:
        sys.setprofile(None)
    assert len(lengths) < 10


@pytest.mark.parametrize("piece", [*PIECES, "nested"])
def test_a_text_of_four_times_the_length_is_read_four_times_as_often(piece: str) -> None:
    def calls(text: str) -> int:
        count = 0

        def note(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(note)
        try:
            MASK.text(text)
        finally:
            sys.setprofile(None)
        return count

    short = "token " + (nested_urls(7) if piece == "nested" else piece * 10) * 30
    # What is compiled with its first use is no part of the text.
    MASK.text(short * 4)
    assert calls(short * 4) <= 4.5 * calls(short) + 500


def test_texts_in_texts_are_read_in_proportion_to_their_length_or_not_shown() -> None:
    assert MASK.text(nested_urls(3)).count("****") == 1
    assert SECRET not in MASK.text(nested_urls(30))


def test_a_pattern_of_many_parts_is_looked_for_once() -> None:
    assert "a" * 200_000 not in Keys(["*a*a*b*a*b*"])
    assert "a" * 1000 + "b" in Keys(["*a*a*b", "x*y"])


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
@example('"sid"=x[token]Pass_WordS3CRET')
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


@pytest.mark.parametrize("key", ["s", "id", "sid", "password", "connect.sid", "card2"])
def test_the_search_finds_a_name_wherever_a_block_of_bytes_ends(key: str) -> None:
    search = search_for(Keys([key]))
    for name in (key, key.upper(), "-_ +"[: len(key)].join(key), f"{key[:1]}{' ' * 20}{key[1:]}"):
        for before in range(40):
            found = f'["{"x" * before}","{key}!",{{"{name}":1}}]'
            assert search(found.encode()), found
            assert search(f'{{"a":"{"x" * before}{name}=1"}}'.encode()), found


def test_the_search_goes_on_behind_a_fragment_that_is_no_name() -> None:
    for count in range(1, 40):
        texts = ["x" * count, "a token@", "of sid, 50%2", "é"] * count
        # The plain one looks for fragments alone.
        assert MASK.may_change(event(x=texts)) is (implementation("search") == REFERENCE)
        assert MASK.may_change(event(x=[*texts, "token=1"]))


@given(names, st.sampled_from(["name", "Name", "key", "Key"]))
@example('x"password', "name")
def test_the_search_finds_a_name_that_is_a_value(name: str, says: str) -> None:
    forms = [[name, "S3CRET"], [[name, "S3CRET"]], {"value": "S3CRET", says: name}, {says: name, "value": "S3CRET"}]
    # What pydantic says of an input.
    forms += [{"loc": ["body", 0, name], "input": "S3CRET"}, [{"loc": [name], "msg": "bad", "input": {"a": "S3CRET"}}]]
    for form in forms:
        for payload in (event(x=form), event(x=json.dumps(form))):
            masked = MASK.event(payload)
            assert (b"S3CRET" not in masked) == MASK.runner(orjson.loads(payload)), payload


@pytest.mark.skipif(implementation("search") != COMPILED, reason="the plain search looks at each byte for each key")
def test_names_as_values_that_hold_each_other_are_read_instead_of_searched_again_and_again() -> None:
    # Each is a text in the one before it, and none ends: a search that followed each would take seconds for a megabyte.
    nested = ["name:" + chr(92) * escapes + '"' for escapes in range(200)]
    search = search_for(Keys(["password"]))
    assert not search("".join([*nested[:3], "password"]).encode() + bytes(1000))
    assert search("".join([*nested, "password"]).encode() + bytes(100_000))


def test_what_no_search_can_find_is_read() -> None:
    assert all(search_for(Keys([key]))(event()) for key in ("", "*", "карта", "/", '"'))
    assert not search_for(Keys(["a/bcd"]))(event(x="1"))


def test_the_search_knows_each_character_that_folds_to_ascii() -> None:
    folded = [
        each
        for each in map(chr, itertools.chain(range(128, 0xD800), range(0xE000, 0x110000)))
        if not (simple := normalized(each)) or any(map(str.isascii, simple))
    ]
    assert len(folded) > 1600
    for each in folded:
        assert may_hold_plainly([b"x"], each.encode()), each
        # As it is, and as JSON in JSON writes it.
        for name in (f"pa{each}", json.dumps({f"pa{each}": 1})):
            assert MASK.may_change(event(**{name: "1"})), name
    assert not any(MASK.may_change(event(**{each: json.dumps({each: "x"})})) for each in "éäкйñ日😀🚀")


def test_what_clients_send_is_masked_loosely_whatever_the_options_say() -> None:
    class Options:
        ignored_keys = ("api_key",)
        default_ignored_keys = True
        masking = "exact"

    assert client_mask_of(Options()).text("API-Key=1&password=2") == "API-Key=****&password=2"
