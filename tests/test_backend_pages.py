"""The pages as a client without JavaScript has them."""

import html
import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from records import event_fields, exception_fields
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.backend.pages import rendering

STARTED_AT = 1_700_000_000.0
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\r\n\x00{{ 7*7 }}"


def post(backend: Backend, trace_id: str, *events: dict[str, Any], app: str = "shop", **more: Any) -> None:
    trace = {"app_name": app, "token": "t", "events": events, "exceptions": [], "version": "1", "platform": "p", **more}
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
        headers = {"Authorization": "Bearer t", "Idempotency-Key": trace_id}
        answer = client.request("POST", backend.url, body=json.dumps(trace).encode(), headers=headers)
    assert answer.status == 200, answer.data


def runner(name: str = "work", started: float = 0.0, duration: float = 1.0, **metadata: str) -> dict[str, Any]:
    fields = event_fields("r", "runner", **metadata)
    fields |= {"start_time": STARTED_AT + started, "duration": duration, "id": "ab" * 8}
    return {**fields, "resource": {**fields["resource"], "name": name, "type": "python-function"}}


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
        yield client


def read(client: urllib3.PoolManager, backend: Backend, path: str, status: int = 200) -> str:
    answer = client.request("GET", backend.url + path)
    assert answer.status == status, answer.data
    return answer.data.decode()


def rows(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'<td class="name"><a [^>]*><bdi>([^<]*)</bdi>', page)]


def test_the_list_shows_the_newest_first_with_all_columns(client: urllib3.PoolManager, backend: Backend) -> None:
    post(backend, "a", runner("first", 1, 0.25))
    post(backend, "b", runner("second", 2, 1.0), app="bakery")
    page = read(client, backend, "/")
    assert rows(page) == ["second", "first"]
    for said in (
        "bakery",
        "250 ms",
        "1 s",
        'class="badge ok"',
        '<span class="unit">events </span>1',
        "keeps 1 GiB,",
    ):
        assert said in page
    assert re.findall(r'<rect class="ok" x="0" width="(\d+)"', page) == ["10000", "2500"]
    assert 'data-live="/live?after=' in page


def test_a_filter_is_the_same_on_the_page_and_in_the_api(client: urllib3.PoolManager, backend: Backend) -> None:
    for number in range(4):
        post(backend, f"t{number}", runner(f"work {number}", number, labels=json.dumps({"user": number})))
    for query in ("text=work", "label.user=2", "name=work+1", "min_duration=2s", "since=1h", "status=ok&app=shop"):
        names = [row["name"] for row in json.loads(read(client, backend, f"/traces?{query}"))["traces"]]
        assert rows(read(client, backend, f"/?{query}")) == names, query
    assert "unknown parameter" in read(client, backend, "/?colour=red", 400)
    assert "unknown parameter" in read(client, backend, "/traces?colour=red", 400)


def test_the_form_keeps_what_was_asked_and_takes_labels_and_attributes(
    client: urllib3.PoolManager, backend: Backend
) -> None:
    post(backend, "a", runner("one", labels=json.dumps({"user": "4=2"}), path="/cart"))
    post(backend, "b", runner("two"))
    # As a browser sends the form, empty fields and all.
    sent_on = client.request("GET", f"{backend.url}/?text=&label=user%3D4%3D2&attr=path+%3D+/cart&name=")
    assert sent_on.status == 303 and rows(read(client, backend, sent_on.headers["location"])) == ["one"]
    page = read(client, backend, "/?label.user=4%3D2&status=error&status=died")
    assert '<input type="hidden" name="label.user" value="4=2">' in page
    assert "<option selected>error,died</option>" in page
    for wrong in ("min_duration=soon", "label=user", "attr=%3D1"):
        page = read(client, backend, f"/?{wrong}&app=shop&status=error,timeout,died", 400)
        name, _, value = urllib.parse.unquote(wrong).partition("=")
        assert f'name="{name}" value="{value}"' in page and 'name="app" value="shop"' in page
        assert '<option value="error,timeout,died" selected>failed</option>' in page


def test_older_traces_are_a_link_away(
    client: urllib3.PoolManager, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epsagon_fast.backend.pages.listing.PAGE_TRACES", 2)
    for number in range(5):
        post(backend, f"t{number}", runner(f"work {number}", number))
    page, seen = read(client, backend, "/?text=work"), []
    while True:
        seen += rows(page)
        older = re.search(r'<a href="([^"]*)" rel="next">', page)
        if older is None:
            break
        page = read(client, backend, html.unescape(older[1]))
        assert "data-live" not in page
    assert seen == [f"work {number}" for number in (4, 3, 2, 1, 0)]


def events(response: http.client.HTTPResponse, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = response.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found


def test_what_comes_is_told_to_a_page_that_asked_for_such(backend: Backend) -> None:
    post(backend, "old", runner("old"))
    after = backend.store.latest()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(backend.url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"/live?text=wanted&after={after!r}")
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")
        post(backend, "other", runner("other"))
        post(backend, "new", runner("wanted"))
        [told] = events(response, 1)
    finally:
        connection.close()
    assert rows(told["html"]) == ["wanted"] and told["html"].lstrip().startswith("<tr ")


def test_a_stream_ends_by_itself_and_goes_on_where_it_was(
    client: urllib3.PoolManager, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epsagon_fast.backend.live.STREAM_S", 0.0)
    post(backend, "a", runner("a"))
    assert read(client, backend, "/live?after=0") == "retry: 300\n\nid: 0.0\n\n"
    monkeypatch.setattr("epsagon_fast.backend.live.STREAM_S", 0.2)
    answer = client.request(
        "GET", backend.url + "/live?after=0", headers={"Last-Event-ID": repr(backend.store.latest())}
    )
    assert b"data:" not in answer.data and answer.data.endswith(f"id: {backend.store.latest()!r}\n\n".encode())
    assert read(client, backend, "/live?after=0").count("data:") == 1
    assert client.request("GET", backend.url + "/live?after=soon").status == 400


def test_what_a_trace_says_stays_text(client: urllib3.PoolManager, backend: Backend) -> None:
    labels = json.dumps({HOSTILE: HOSTILE})
    event = runner(HOSTILE, path=HOSTILE, labels=labels, **{HOSTILE: HOSTILE})
    event |= {"exception": {**exception_fields(HOSTILE, HOSTILE), "type": HOSTILE}, "error_code": 2}
    post(backend, "h", event, app=HOSTILE)
    details = [f"/{part}/h?event=h:0" for part in ("requests", "event")]
    for path in (
        *details,
        "/copy/h",
        "/nodes/h",
        "/",
        f"/?text={urllib.parse.quote('<script>')}",
        f"/?app={urllib.parse.quote(HOSTILE)}",
    ):
        answer = client.request("GET", backend.url + path)
        page = answer.data.decode()
        assert answer.status == 200
        if not answer.headers["content-type"].startswith("text/html"):
            assert not {*"\u202e\x1b\x00"} & {*page}
            continue
        assert "<script>alert" not in page and "<img" not in page and "49" not in rows(page)
        assert not {*"\u202e\x1b\x00"} & {*page}


def test_a_name_of_a_megabyte_is_cut(client: urllib3.PoolManager, backend: Backend) -> None:
    post(backend, "m", runner("x" * 1_000_000))
    assert len(read(client, backend, "/")) < 20_000
    assert len(read(client, backend, "/requests/m")) < 20_000
    post(backend, "n", runner("n"), app="y" * 1_000_000)
    assert len(read(client, backend, "/traces")) < 20_000
    assert rows(read(client, backend, f"/?app={'y' * 400}")) == ["n"]


def test_an_id_in_the_search_leads_to_its_request(client: urllib3.PoolManager, backend: Backend) -> None:
    post(backend, "a/b", runner("work", http_trace_id="c" * 32))
    for text in ("a/b", "c" * 32):
        path = f"/?app=&text={urllib.parse.quote(text)}"
        answer = client.request("GET", backend.url + path, redirect=False)
        assert (answer.status, answer.headers["location"]) == (303, f"/requests/{urllib.parse.quote(text, safe='')}")
    assert rows(read(client, backend, f"/?app=shop&text={'c' * 32}")) == ["work"]


@pytest.mark.parametrize(
    ("value_s", "said"),
    [
        *((None, "–"), (0.0, "0 µs"), (0.000045, "45 µs"), (0.00123, "1.23 ms"), (0.1, "100 ms"), (0.0999, "99.9 ms")),
        *((1.0, "1 s"), (59.94, "59.9 s"), (61.0, "1 min 1 s"), (7200.0, "120 min 0 s"), (1e-9, "0 µs")),
    ],
)
def test_a_duration_has_three_digits(value_s: float | None, said: str) -> None:
    assert rendering.duration(value_s) == said


@pytest.mark.parametrize(
    ("value_bytes", "said"),
    [
        *(
            (0, "0 B"),
            (7, "7 B"),
            (999, "999 B"),
            (1000, "1000 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (3500, "3.42 KiB"),
        ),
        *(
            (1020 << 10, "1020 KiB"),
            (1 << 20, "1 MiB"),
            (1000 << 20, "1000 MiB"),
            (5 << 30, "5 GiB"),
            (5 << 40, "5 TiB"),
            (5 << 50, "5120 TiB"),
        ),
    ],
)
def test_a_size_has_no_exponent(value_bytes: int, said: str) -> None:
    assert rendering.size(value_bytes) == said


def called(http_trace_id: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A request's runner, its call, and the runner of who was called."""
    call = {**event_fields("call"), "id": "c" * 16, "start_time": STARTED_AT + 0.25, "duration": 0.5}
    web = runner("web", 0, 1.0, http_trace_id=http_trace_id)
    other = {**runner("other", 0.3, 0.25, http_trace_id=http_trace_id), "parent_id": "c" * 16}
    return web, call, other


def test_a_request_is_shown_with_all_its_traces(client: urllib3.PoolManager, backend: Backend) -> None:
    web, call, other = called("a" * 32)
    post(backend, "t/1", call, web)
    post(backend, "t?2", other, app="bakery")
    for request_id in ("a" * 32, "t%2F1", "t%3F2"):
        page = read(client, backend, f"/requests/{request_id}")
        assert re.findall(r'class="title" href="[^"]*"><bdi>([^<]*)', page) == ["web", "db", "other"]
        assert "<b>2</b> traces" in page and ">bakery<" in page
        bars = re.findall(r'<rect class="ok" x="([\d.]+)" width="([\d.]+)"', page)
        assert bars == [("0.0", "10000.0"), ("2500.0", "5000.0"), ("3000.0", "2500.0")]
    assert "<h2><bdi>other</bdi></h2>" in read(client, backend, "/requests/t%3F2")
    nodes = json.loads(read(client, backend, f"/nodes/{'a' * 32}"))
    assert [(node["title"], node["depth"]) for node in nodes["nodes"]] == [("web", 0), ("db", 1), ("other", 2)]
    assert json.loads(read(client, backend, f"/find/{'a' * 32}?text=SELECT"))["count"] == 3
    copied = read(client, backend, f"/copy/{'a' * 32}?form=text&event={urllib.parse.quote('t?2:0')}")
    assert copied.startswith("other  ") and copied.count("\n") == 1
    assert len(json.loads(read(client, backend, f"/copy/{'a' * 32}?form=json"))) == 3


@pytest.mark.parametrize("start", [1e14, -1e14, 6e10, -6e10])
def test_a_time_beyond_all_calendars_is_no_hindrance(
    client: urllib3.PoolManager, backend: Backend, start: float
) -> None:
    post(backend, "far", {**runner("far"), "start_time": start}, {**event_fields(2), "start_time": -start})
    for path in ("/requests/far", "/event/far?event=far", "/nodes/far", "/copy/far", "/", "/operations?since=0"):
        read(client, backend, path)


def test_what_an_event_says_is_found_as_it_is_written(client: urllib3.PoolManager, backend: Backend) -> None:
    exception = {**exception_fields('no "funds"', "line 1\nline 2"), "additional_data": {"cvc": "wrong"}}
    first = {**event_fields(1), "resource": {**event_fields(1)["resource"], "metadata": {"body": '{"sku": "A-1"}'}}}
    post(backend, "x", first, {**runner("x"), "exception": exception}, exceptions=[exception_fields("besides")])
    found = {
        text: json.loads(read(client, backend, f"/find/x?text={urllib.parse.quote(text)}"))["count"]
        for text in ('"SKU": "a-1"', "body", '"funds"', "1\nline", "cvc", "wrong", "besides", "exception", "metadata")
    }
    assert found == {**dict.fromkeys(found, 1), "exception": 0, "metadata": 0}


def test_a_trace_that_comes_later_joins_its_request(client: urllib3.PoolManager, backend: Backend) -> None:
    web, call, other = called("b" * 32)
    post(backend, "one", call, web)
    assert "<b>1</b> trace\n" in read(client, backend, f"/requests/{'b' * 32}").replace("trace</span>", "trace\n")
    post(backend, "two", other)
    assert "<b>2</b> traces" in read(client, backend, f"/requests/{'b' * 32}")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/requests/none", 404), ("/nodes/none", 404), ("/event/none?event=x", 404), ("/copy/none", 404)),
        *(("/event/x?event=x:9", 404), ("/copy/x?event=x:9", 404), ("/copy/x?form=xml", 400), ("/find/x?text=", 400)),
        *(("/requests/x?from=9", 400), ("/requests/x?event=nowhere", 200), ("/find/x?text=" + "x" * 501, 400)),
    ],
)
def test_what_is_not_there_is_said(client: urllib3.PoolManager, backend: Backend, path: str, status: int) -> None:
    post(backend, "x", runner("x"))
    read(client, backend, path, status)


def test_ten_thousand_events_are_read_by_pages(client: urllib3.PoolManager, backend: Backend) -> None:
    events = [
        {**event_fields(number), "id": f"{number:016x}", "start_time": STARTED_AT + number} for number in range(4000)
    ]
    post(backend, "many", *events, runner("many", 0, 9999))
    page = read(client, backend, "/requests/many?from=3900")
    assert len(re.findall('<li class="event', page)) == 101
    assert len(json.loads(read(client, backend, "/nodes/many"))["nodes"]) == 4001


def test_operations_say_how_often_how_long_and_how_well(client: urllib3.PoolManager, backend: Backend) -> None:
    for number in range(100):
        event = runner("often <b>", number, (number + 1) / 100)
        post(backend, f"t/{number}", {**event, "error_code": int(number < 7)})
    post(backend, "seldom", runner("seldom", 50, 900.0))
    page = read(client, backend, f"/operations?since={STARTED_AT}&until={STARTED_AT + 99}")
    seldom, often = (
        [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(?:<a [^>]*>)?(?:<bdi>)?([^<]*)", line)]
        for line in page.split("<tbody>")[1].split("</tr>")[:2]
    )
    assert seldom[:6] == ["seldom", "1", "0", "15 min 0 s", "15 min 0 s", "15 min 0 s"]
    assert often[:6] == ["often <b>", "100", "7", "500 ms", "950 ms", "990 ms"]
    dots = re.findall(r'<a href="([^"]*)" class="(\w+)"[^>]*><circle cx="([\d.]+)" cy="([\d.]+)"', page)
    assert len(dots) == 101
    assert ("/requests/t%2F0", "error", "3.5", "40.1") in dots and ("/requests/t%2F99", "ok", "596.5", "3.5") in dots
    failed = html.unescape(re.findall(r'failed"[^>]*><a href="([^"]*)"', page)[0])
    assert len(rows(read(client, backend, failed))) == 7
    assert "No trace started" in read(client, backend, "/operations")
    read(client, backend, "/operations?colour=red", 400)
