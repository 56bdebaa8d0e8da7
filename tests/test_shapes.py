"""Containers of libraries are walked, so that masking finds their names, and what would ask a database is not read."""

import argparse
import collections
import email.message
import http.client
import itertools
import json
import optparse
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urldefrag, urlparse, urlsplit

import pytest

from epsagon_fast.masking import LooseMask
from epsagon_fast.producer.plain import MAX_VALUES, Copy, metadata_text

SECRET = "S3CRET"


def attrs_like() -> Any:
    """An object as attrs makes them; of a real one see below."""

    class Login:
        __attrs_attrs__ = (types.SimpleNamespace(name="password"), types.SimpleNamespace(name="_private"))
        password = SECRET
        _private = SECRET

    return Login()


class Login(NamedTuple):
    password: str = SECRET
    number: int = 1


@dataclass(slots=True)
class SlottedLogin:
    password: str = SECRET


def message(kind: type[email.message.Message]) -> Any:
    made = kind()
    made["password"] = SECRET
    return made


OWN: dict[str, Any] = {
    "UserDict": lambda: collections.UserDict(password=SECRET),
    "UserList": lambda: collections.UserList([{"password": SECRET}]),
    "namedtuple": Login,
    "SimpleNamespace": lambda: types.SimpleNamespace(password=SECRET),
    "argparse": lambda: argparse.Namespace(password=SECRET),
    "optparse": lambda: optparse.Values({"password": SECRET}),
    "dataclass": SlottedLogin,
    "attrs": attrs_like,
    "items": lambda: {"password": SECRET}.items(),
    "items of OrderedDict": lambda: collections.OrderedDict(password=SECRET).items(),
    "mappingproxy": lambda: types.MappingProxyType({"password": SECRET}),
    "ChainMap": lambda: collections.ChainMap({}, {"password": SECRET}),
    "Message": lambda: message(email.message.Message),
    "HTTPMessage": lambda: message(http.client.HTTPMessage),
}


def shown(value: Any) -> str:
    return LooseMask(["password"]).text(metadata_text({"value": value}))


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_a_container_shows_no_secret(make: Callable[[], Any]) -> None:
    assert SECRET in metadata_text(make())
    assert SECRET not in shown(make())
    assert SECRET not in shown([make()])
    assert "****" in shown(make())


def test_members_stand_under_their_names() -> None:
    assert metadata_text(Login()) == '{"password":"S3CRET","number":1}'
    assert metadata_text({"a": 1}.keys()) == '["a"]'
    assert metadata_text({"a": 1}.values()) == "[1]"
    assert metadata_text(attrs_like()) == '{"password":"S3CRET"}'


def test_a_container_is_bounded() -> None:
    namespace = types.SimpleNamespace()
    namespace.itself = namespace
    assert metadata_text(namespace) == '{"itself":"..."}'
    copy = Copy()
    copy.text(collections.UserList(range(100_000)))
    assert copy.left_out > 0


def test_a_member_that_cannot_be_read_costs_the_container_and_no_more() -> None:
    class Lazy:
        __attrs_attrs__ = (types.SimpleNamespace(name="password"),)

        @property
        def password(self) -> str:
            raise OSError("no connection")

        __repr__ = __str__ = lambda self: SECRET

    text = metadata_text({"a": Lazy(), "b": 1})
    assert SECRET not in text and json.loads(text)["b"] == 1


def test_pydantic_models_and_attrs_classes_are_walked() -> None:
    attrs, pydantic = pytest.importorskip("attrs"), pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Model", password=(str, SECRET), hidden=(pydantic.SecretStr, pydantic.SecretStr(SECRET))
    )
    kind = attrs.make_class("Kind", {"password": attrs.field(default=SECRET)})
    assert metadata_text(model()) == '{"password":"S3CRET","hidden":"**********"}'
    assert metadata_text(kind()) == '{"password":"S3CRET"}'


def test_a_member_that_its_class_does_not_print_is_left_out() -> None:
    attrs, pydantic = pytest.importorskip("attrs"), pytest.importorskip("pydantic")

    @dataclass
    class Hidden:
        a: int = 1
        b: str = field(default=SECRET, repr=False)

    kind = attrs.make_class("Kind", {"a": attrs.field(default=1), "b": attrs.field(default=SECRET, repr=False)})
    model = pydantic.create_model("Model", a=(int, 1), b=(str, pydantic.Field(SECRET, repr=False)))
    assert [*map(metadata_text, (Hidden(), kind(), model()))] == ['{"a":1}'] * 3

    @dataclass
    class AllHidden:
        b: str = field(default=SECRET, repr=False)

    assert metadata_text(AllHidden()) == "{}"


def test_parts_of_a_url_are_one_text_in_which_its_password_is_found() -> None:
    from urllib3.util import parse_url

    url = f"http://user:{SECRET}@host/a?password={SECRET}"
    for parts in (urlparse(url), urlsplit(url), urlsplit(url.encode()), parse_url(url), urldefrag(url)):
        assert metadata_text({"value": parts}) == f'{{"value":"{url}"}}'
        assert SECRET not in shown(parts)


def test_a_secret_of_starlette_is_printed_as_it_hides_itself() -> None:
    from starlette.datastructures import Secret

    assert metadata_text({"a": Secret(SECRET)}) == """{"a":"Secret('**********')"}"""


def test_a_mapping_without_end_is_no_metadata_without_end() -> None:
    class Endless(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return 1

        def __iter__(self) -> Any:
            return map(str, itertools.count())

        def __len__(self) -> int:
            return sys.maxsize

    copy = Copy()
    found = copy.metadata(Endless(), False)
    assert len(found) == MAX_VALUES + 1 and found["..."].endswith("more") and copy.left_out > 0
    assert len(Copy().metadata(collections.OrderedDict.fromkeys(map(str, range(20_000)), 1), False)) == 20_000


def test_all_values_of_a_multi_dict_are_walked() -> None:
    from starlette.datastructures import FormData, QueryParams
    from urllib3 import HTTPHeaderDict
    from werkzeug.datastructures import CombinedMultiDict, Headers, MultiDict

    pairs = [("password", SECRET), ("password", "2")]
    several = [Headers(pairs), MultiDict(pairs), CombinedMultiDict([MultiDict([pair]) for pair in pairs])]
    for each in (*several, QueryParams(pairs), FormData(pairs), HTTPHeaderDict(pairs)):
        assert metadata_text(each) == '{"password":["S3CRET","2"]}'
        assert shown(each) == '{"value":{"password":"****"}}'


def test_what_stands_behind_a_proxy_is_walked() -> None:
    flask = pytest.importorskip("flask")
    from werkzeug.local import Local, LocalProxy

    app = flask.Flask("shop")
    app.secret_key = "key"
    with app.test_request_context("/?password=S3CRET"):
        flask.session["password"] = SECRET
        local, variable = Local(), ContextVar[Login]("login")
        variable.set(Login())
        local.login = Login()
        for proxy in (flask.session, flask.request.args, local("login"), LocalProxy(variable)):
            assert SECRET in metadata_text(proxy)
            assert SECRET not in shown(proxy)
    assert "unbound" in metadata_text(flask.session)


def test_a_proxy_that_calls_a_function_is_not_asked() -> None:
    # As flask_login's current_user, whose function loads the user.
    from werkzeug.local import LocalProxy

    assert metadata_text({"user": LocalProxy(ask)}) == '{"user":"<LocalProxy, not read yet>"}'


def named(module: str, name: str, *bases: type, **members: Any) -> type:
    """Make a class that looks like one of a library."""
    return type(name, bases, {"__module__": module, **members})


def ask(*arguments: object) -> Any:
    raise AssertionError("it asks a database")


def test_what_asks_a_database_is_named_and_not_read() -> None:
    asking = dict.fromkeys(("__repr__", "__str__", "__iter__", "__len__", "__getitem__", "__bool__", "__eq__"), ask)
    queries = named("django.db.models.query", "QuerySet", **asking)
    models = named("django.db.models.base", "Model", **asking)
    user = named("shop.models", "User", models)
    query, one = named("shop.models", "Users", queries)(), user()
    query.model, one.id = user, 41
    assert metadata_text(query) == "<Users of User>"
    assert metadata_text([one, {"q": query}]) == '["<User 41>",{"q":"<Users of User>"}]'


def test_a_lazy_object_is_not_made_for_a_record_and_walked_once_it_is_made() -> None:
    functional = pytest.importorskip("django.utils.functional")
    made: list[int] = []
    lazy = functional.SimpleLazyObject(lambda: made.append(1) or {"password": SECRET})
    assert metadata_text({"user": lazy}) == '{"user":"<SimpleLazyObject, not read yet>"}'
    assert Copy().text(lazy) == "<SimpleLazyObject, not read yet>"
    assert made == []
    assert lazy["password"] == SECRET
    assert metadata_text(lazy) == '{"password":"S3CRET"}'


# Real queries, in a process of its own: Django's settings are for the whole process.
QUERIES = """
import json
from django.conf import settings
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[], USE_TZ=True)
import django
django.setup()
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject
from django import forms
from django.contrib.sessions.backends.db import SessionStore
from epsagon_fast.producer.plain import metadata_text

class User(models.Model):
    password = models.TextField()
    class Meta:
        app_label = "shop"
    def __str__(self):
        return str(User.objects.count())

with connection.schema_editor() as editor:
    editor.create_model(User)
User.objects.create(password="S3CRET")
user, everybody = User.objects.get(), User.objects.all()
class Form(forms.Form):
    password = forms.CharField()
    user = forms.ModelChoiceField(everybody)
form = Form({"password": "S3CRET"})
from contextvars import ContextVar
from werkzeug.local import LocalProxy
known = SimpleLazyObject(User.objects.get)
known.password
proxy = LocalProxy(ContextVar("user", default=user))
session, loaded = SessionStore("a" * 32), SessionStore("b" * 32)
loaded._session_cache = {"cart": 1}
raw = User.objects.raw("SELECT * FROM shop_user WHERE password = %s", ["S3CRET"])
values = [everybody, everybody.values("password"), User.objects, user, SimpleLazyObject(User.objects.get)]
values += [session, loaded, form, form["password"], raw, known, proxy]
with CaptureQueriesContext(connection) as captured:
    texts = [metadata_text(each) for each in values]
    texts.append(metadata_text({"all": values}))
print(json.dumps([len(captured.captured_queries), texts, loaded.accessed]))
"""


def test_recording_asks_djangos_database_nothing() -> None:
    pytest.importorskip("django")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", QUERIES], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    asked, texts, is_accessed = json.loads(done.stdout)
    assert asked == 0 and not is_accessed
    assert texts[:2] == ["<QuerySet of User>", "<QuerySet of User>"]
    assert texts[3:5] == ["<User 1>", "<SimpleLazyObject, not read yet>"]
    assert texts[5:8] == ["<SessionStore, not read yet>", '{"cart":1}', "<Form>"]
    assert texts[8:12] == ["<BoundField>", "<RawQuerySet of User>", "<User 1>", "<User 1>"]
    assert not any(SECRET in text for text in texts)


def test_recording_asks_sqlalchemys_database_nothing() -> None:
    sql = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    asked: list[object] = []
    base = orm.declarative_base()
    column = {"id": sql.Column(sql.Integer, primary_key=True), "password": sql.Column(sql.String)}
    user: Any = type("User", (base,), {"__tablename__": "user", **column, "__repr__": lambda self: self.password})
    engine = sql.create_engine("sqlite://")
    base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        new = user(id=41, password=SECRET)
        assert metadata_text(new) == "<User>"
        session.add(new)
        session.commit()
        # Its attributes are loaded again when they are read.
        session.expire_all()
        sql.event.listen(engine, "before_cursor_execute", lambda *_: asked.append(_))
        assert metadata_text({"a": [new]}) == '{"a":["<User 41>"]}' and not asked
        row = session.execute(sql.select(user.id, user.password)).one()
        assert metadata_text(row) == '{"id":41,"password":"S3CRET"}'
        assert SECRET not in shown([row])
        assert metadata_text(session.execute(sql.select(user)).one()) == '{"User":"<User 41>"}'
    engine.dispose()
    assert metadata_text(sql.make_url(f"postgresql://u:{SECRET}@host/shop")) == "postgresql://u:***@host/shop"
