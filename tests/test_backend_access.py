"""Who may read and write, and what a page may do in a browser."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import urllib3
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, running
from epsagon_fast.backend.access import cookie_name

TOKEN = "søsecret"
BODY = json.dumps({"app_name": "a", "token": "t", "events": [], "exceptions": [], "version": "1", "platform": "p"})
HTML = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Backend]:
    with running(token=TOKEN) as backend:
        yield backend


def ask(backend: Backend, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
        return client.request(method, backend.url + path, redirect=False, **options)


def bearer(token: str) -> dict[str, Any]:
    return {"Authorization": b"Bearer " + token.encode()}


@pytest.mark.parametrize("path", ["/", "/live", "/traces", "/traces/x", "/healthz", "/staticx", "/nowhere"])
def test_without_the_token_nothing_is_told(guarded: Backend, path: str) -> None:
    cookie = cookie_name({"server": ("127.0.0.1", int(guarded.url.rpartition(":")[2]))})
    for headers in ({}, bearer("other"), bearer(""), {"Cookie": f"{cookie}=x"}, {"Cookie": 'a="'}):
        assert ask(guarded, "GET", path, headers=headers).status == 401
    assert ask(guarded, "POST", "/", body=BODY, headers=bearer("other")).status == 401
    assert guarded.store.counts()["traces"] == 0


def test_a_program_sends_the_token_with_each_request(guarded: Backend) -> None:
    assert ask(guarded, "GET", "/traces", headers=bearer(TOKEN)).json()["traces"] == []


def test_a_browser_is_asked_for_it_once(guarded: Backend) -> None:
    sent_on = ask(guarded, "GET", "/?app=a&status=ok", headers=HTML)
    assert sent_on.status == 303
    place = sent_on.headers["location"]
    assert place == f"/login?next={quote('/?app=a&status=ok', safe='')}"
    assert 'value="/?app=a&amp;status=ok"' in ask(guarded, "GET", place, headers=HTML).data.decode()
    wrong = ask(guarded, "POST", "/login", body=urlencode({"token": "other", "next": "/"}))
    assert wrong.status == 401 and "set-cookie" not in wrong.headers
    right = ask(guarded, "POST", "/login", body=urlencode({"token": TOKEN, "next": "/?app=a"}))
    assert (right.status, right.headers["location"]) == (303, "/?app=a")
    cookie, *attributes = right.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=lax"} <= {*attributes}
    assert TOKEN not in cookie
    assert ask(guarded, "GET", "/", headers={**HTML, "Cookie": cookie}).status == 200
    # Other programs of this host have cookies, too, of any form.
    among_others = f'prefs={{"a": [1, "b"]}}; ü=@; {cookie}; x'.encode()
    assert ask(guarded, "GET", "/", headers={**HTML, "Cookie": among_others}).status == 200


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/x", "", "/login"]
)
def test_a_login_leads_to_no_other_site(guarded: Backend, elsewhere: str) -> None:
    form = urlencode({"token": TOKEN, "next": elsewhere})
    assert ask(guarded, "POST", "/login", body=form).headers["location"] == "/"


def test_a_login_of_a_megabyte_is_not_read(guarded: Backend) -> None:
    assert ask(guarded, "POST", "/login", body=b"token=" + b"x" * 10**6).status == 413


def test_logins_at_two_backends_of_one_host_hold_side_by_side(guarded: Backend) -> None:
    with running(token=TOKEN) as other:
        jar = dict(
            ask(each, "POST", "/login", body=urlencode({"token": TOKEN})).headers["set-cookie"].split(";")[0].split("=")
            for each in (guarded, other)
        )
        cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
        assert [ask(each, "GET", "/", headers={"Cookie": cookies}).status for each in (guarded, other)] == [200, 200]


def test_no_page_of_another_site_may_write(backend: Backend) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"Authorization": "Bearer t", "Sec-Fetch-Site": site}
        assert ask(backend, "POST", "/", body=BODY, headers=headers).status == status


@pytest.mark.parametrize("path", ["/", "/?app=x", "/login", "/static/viewer.js", "/traces", "/nowhere", "/?colour=red"])
def test_every_answer_forbids_what_a_page_does_not_need(backend: Backend, path: str) -> None:
    answer = ask(backend, "GET", path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_query_is_bounded(backend: Backend) -> None:
    assert ask(backend, "GET", "/traces?text=" + "x" * 33_000).status == 414
    many = urlencode([("label.a", str(number)) for number in range(31)])
    assert ask(backend, "GET", f"/traces?{many}").status == 400


def test_a_static_file_is_one_of_ours(backend: Backend) -> None:
    style = ask(backend, "GET", "/static/viewer.css")
    # Asked for again each time, or a page would get the script of an older version.
    assert (style.status, style.headers["cache-control"]) == (200, "no-cache")
    for path in ("/static/../rendering.py", "/static/%2e%2e/rendering.py", "/static/", "/static/..%2frendering.py"):
        assert ask(backend, "GET", path).status == 404
