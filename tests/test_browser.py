"""The backend's pages in a real browser."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import chromium, opened, violations
from celeries import Shop
from playwright.sync_api import Browser, Page, expect
from records import event_fields, exception_fields
from shopfront import CLIENT, front
from waiting import TIMEOUT_S

import epsagon_fast.backend.live as live
from epsagon_fast.backend import Backend, running
from epsagon_fast.backend.shape import summarize

expect.set_options(timeout=TIMEOUT_S * 1000)
STARTED_AT = 1_700_000_000.0
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m{{ 7*7 }}"
NAMES = ".traces tbody tr .name a"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def event(number: int, start: float, duration: float, parent: int = 0, **more: Any) -> dict[str, Any]:
    fields = {**event_fields(number), "id": f"{number:016x}", "start_time": STARTED_AT + start, "duration": duration}
    name, metadata = more.pop("name", f"call {number}"), more.pop("metadata", {})
    fields["resource"] = {"name": name, "type": "python-function", "operation": "invoke", "metadata": metadata}
    return fields | ({"parent_id": f"{parent:016x}"} if parent else {}) | more


def keep(backend: Backend, trace_id: str, *events: dict[str, Any], app: str = "shop") -> None:
    trace = {"app_name": app, "token": "t", "events": events, "exceptions": [], "version": "1", "platform": "p"}
    body = json.dumps(trace).encode()
    backend.store.keep(trace_id, b"t", body, summarize(body))


def a_request(backend: Backend) -> str:
    """A request of two processes; return its id."""
    request_id, origin = "ab" * 16, {"origin": "runner"}
    shared = {"metadata": {"http_trace_id": request_id, "body": json.dumps({"lines": [{"sku": "A-1"}]})}}
    calls = [event(2, 0.1, 0.2, 1, name="query"), event(3, 0.4, 0.4, 1, name="call")]
    keep(backend, "t1", *calls, event(1, 0.0, 1.0, name="web", **origin, **shared))
    failed = {"error_code": 2, "exception": exception_fields("no funds", "Traceback: line 7")}
    keep(backend, "t2", event(4, 0.5, 0.25, 3, name="called", **origin, **shared, **failed), app="bakery")
    return request_id


def test_a_real_request_appears_while_somebody_looks_and_can_be_opened(
    browser: Browser, backend: Backend, shop: Shop
) -> None:
    with front(shop) as url, opened(browser, backend.url) as page:
        page.goto("/?app=tests")
        expect(page.locator("#live")).to_be_visible()
        expect(page.locator(NAMES)).to_have_count(0)
        shop.place.run(CLIENT, url + "/orders")
        expect(page.locator(NAMES)).to_have_count(4)
        assert {*page.locator(NAMES).all_inner_texts()} == {"client", "POST /orders", "orders.book", "GET /stock/c-17"}
        page.get_by_role("link", name="orders.book").click()
        expect(page.locator(".rows.virtual")).to_be_visible()
        assert page.locator(".request-head").inner_text().count("4 traces") == 1
        titles = page.locator(".rows .title").all_inner_texts()
        told = page.evaluate("async (path) => (await (await fetch(path)).json()).nodes", f"/nodes/{path_of(page)}")
        assert titles == [node["title"] for node in told]
        # Each hangs below the very call that caused it: through four processes.
        assert [node["depth"] for node in told] == [*range(7)]
        assert page.locator(".panel h2").inner_text() == "orders.book"


def path_of(page: Page) -> str:
    return str(page.locator(".viewer").get_attribute("data-path"))


def test_each_filter_finds_what_it_says_and_bars_are_as_long_as_durations(browser: Browser, backend: Backend) -> None:
    failed = {"error_code": 2, "exception": exception_fields("declined")}
    durations = {"slow": 2.0, "fast": 0.25, "broken": 1.0}
    for number, (name, duration) in enumerate(durations.items()):
        more = failed if name == "broken" else {"metadata": {"labels": json.dumps({"kind": name})}}
        keep(backend, name, event(1, number, duration, name=name, origin="runner", **more), app=f"app {number}")
    with opened(browser, backend.url, viewport={"width": 1300, "height": 800}) as page:
        page.goto("/")
        widths = [box_of(page, f".traces tr:nth-child({row}) .duration rect") for row in (1, 2, 3)]
        whole = box_of(page, ".traces tr:nth-child(1) .duration svg")["width"]
        for box, duration in zip(widths, (1.0, 0.25, 2.0), strict=True):
            assert box["width"] == pytest.approx(whole * duration / 2.0, abs=1.0)
        for label, value, wanted in (
            ("Text", "declin*", ["broken"]),
            ("Application", "app 1", ["fast"]),
            ("Name", "slow", ["slow"]),
            ("Error", "ValueError", ["broken"]),
            ("Label", "kind=fast", ["fast"]),
            ("Attribute", 'labels={"kind": "slow"}', ["slow"]),
            ("Longer than", "500ms", ["broken", "slow"]),
            ("Shorter than", "1s", ["broken", "fast"]),
            ("Since", str(STARTED_AT + 1), ["broken", "fast"]),
            ("Until", str(STARTED_AT), ["slow"]),
        ):
            page.goto("/")
            page.get_by_label(label, exact=True).fill(value)
            page.keyboard.press("Enter")
            expect(page.locator(".chips li")).to_have_count(1)
            assert page.locator(NAMES).all_inner_texts() == wanted, label
        page.goto("/")
        page.get_by_label("Status").select_option("error")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(NAMES)).to_have_text(["broken"])
        page.get_by_role("link", name="Without status").click()
        expect(page.locator(NAMES)).to_have_count(3)
        # What comes meanwhile has its place by its start, and all bars their share of the longest.
        keep(backend, "longest", event(1, 0.5, 4.0, name="longest", origin="runner"))
        expect(page.locator(NAMES)).to_have_text(["broken", "fast", "longest", "slow"])
        assert box_of(page, ".traces tr:nth-child(4) .duration rect")["width"] == pytest.approx(whole / 2, abs=1.0)


def box_of(page: Page, place: str) -> dict[str, float]:
    return dict(page.locator(place).first.evaluate("each => each.getBoundingClientRect().toJSON()"))


def test_a_request_is_walked_through_by_keys_and_its_bars_match(browser: Browser, backend: Backend) -> None:
    request_id = a_request(backend)
    with opened(browser, backend.url, viewport={"width": 1300, "height": 800}) as page:
        page.goto(f"/requests/{request_id}")
        rows = page.locator(".rows.virtual li")
        expect(rows.locator(".title")).to_have_text(["web", "query", "call", "called"])
        whole = box_of(page, ".rows li .bar")
        for row, (start, length) in enumerate(((0.0, 1.0), (0.1, 0.2), (0.4, 0.4), (0.5, 0.25)), 1):
            box = box_of(page, f".rows li:nth-child({row}) .bar rect")
            assert box["left"] - whole["left"] == pytest.approx(start * whole["width"], abs=1.0)
            assert box["width"] == pytest.approx(length * whole["width"], abs=1.0)
        assert '"sku": "A-1"' in page.locator(".panel pre").first.inner_text()
        for key, chosen in (("ArrowDown", "query"), ("j", "call"), ("ArrowRight", "called"), ("ArrowLeft", "call")):
            page.keyboard.press(key)
            expect(page.locator(".event.chosen .title")).to_have_text(chosen)
            expect(page.locator(".panel h2")).to_have_text(chosen)
        page.keyboard.press("ArrowLeft")
        expect(rows.locator(".title")).to_have_text(["web", "query", "call"])
        page.keyboard.press("/")
        page.keyboard.type("no funds")
        expect(page.locator(".found")).to_have_text("1 found")
        expect(page.locator(".event.chosen .title")).to_have_text("called")
        expect(page.locator(".panel")).to_contain_text("Traceback: line 7")
        # The address says what is chosen; the link leads back to it.
        expect(page).to_have_url(re.compile(r"\?event=t2%3A0$"))
        page.reload()
        expect(page.locator(".event.chosen .title")).to_have_text("called")
        scrubber = box_of(page, ".scrubber")
        page.mouse.move(scrubber["left"] + scrubber["width"] * 0.5, scrubber["top"] + 20)
        page.mouse.down()
        page.mouse.move(scrubber["left"] + scrubber["width"] * 0.75, scrubber["top"] + 20)
        page.mouse.up()
        box = box_of(page, ".event.chosen .bar rect")
        assert box["width"] == pytest.approx(box_of(page, ".rows li .bar")["width"], rel=0.02)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        for place, lines in ((".tools", ["web", "query", "call", "called"]), (".panel", ["called"])):
            page.locator(place).get_by_role("link", name="Copy as text").click()
            expect(page.locator(".said")).to_be_visible()
            copied = page.evaluate("navigator.clipboard.readText()")
            assert [line.split()[0] for line in copied.splitlines()] == lines
            expect(page.locator(".said")).to_be_hidden()


def test_of_ten_thousand_events_only_those_in_view_are_in_the_page(browser: Browser, backend: Backend) -> None:
    for first in range(0, 10_000, 2500):
        calls = (event(number, number / 1000, 0.01) for number in range(first + 1, first + 2500))
        runner = event(20_000 + first, first / 1000, 2.5, name=f"part {first}", origin="runner")
        runner["resource"]["metadata"]["http_trace_id"] = "cd" * 16
        keep(backend, f"part {first}", *calls, runner)
    with opened(browser, backend.url) as page:
        page.goto(f"/requests/{'cd' * 16}")
        expect(page.locator(".rows.virtual")).to_be_visible()
        page.keyboard.press("End")
        expect(page.locator(".event.chosen .title")).to_have_text("call 9999")
        assert page.locator(".rows li").count() < 80


def test_what_a_trace_says_is_text_and_no_page_keeps_people_out(browser: Browser, backend: Backend) -> None:
    request_id = a_request(backend)
    failure = {"error_code": 2, "exception": {**exception_fields(HOSTILE, HOSTILE), "type": HOSTILE}}
    metadata = {HOSTILE: HOSTILE, "labels": json.dumps({HOSTILE: HOSTILE}), "is_trimmed": "true"}
    shown = event(9, 0, 1, name=HOSTILE, origin="runner", metadata=metadata, **failure)
    keep(backend, HOSTILE[:20], event(8, 0, 9, name=HOSTILE), shown, app=HOSTILE)
    hostile = "/requests/%3Cscript%3Ealert(1)%3C%2Fsc"
    pages = ("/", f"/requests/{request_id}", hostile, f"/operations?since={STARTED_AT - 1}")
    with opened(browser, backend.url) as page:
        for path in pages:
            page.goto(path)
            assert violations(page) == [], path
    with opened(browser, backend.url, color_scheme="dark") as page:
        page.goto(pages[1])
        assert violations(page) == []
    with opened(browser, backend.url, viewport={"width": 360, "height": 740}) as page:
        for path in pages:
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        for width in (700, 900, 1100):
            page.set_viewport_size({"width": width, "height": 740})
            page.goto("/")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert box_of(page, ".traces .name")["width"] > 150
    with opened(browser, backend.url) as page:
        page.goto(hostile)
        expect(page.locator(".rows.virtual li")).to_have_count(2)
        assert "<script>alert(1)</script>" in page.locator("h1").inner_text()
        assert "\\u202egnp.exe\\x1b[31m{{ 7*7 }}" in page.locator("h1").inner_text()


def test_a_list_that_nothing_feeds_any_more_does_not_say_that_it_is_live(
    browser: Browser, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STREAM_S", 0.5)
    with opened(browser, backend.url) as page:
        page.goto("/")
        expect(page.locator("#live")).to_be_visible()
        # From now on the browser gets no answer.
        page.route("**/live*", lambda route: None)
        expect(page.locator("#live")).to_be_hidden()


def test_the_token_is_asked_for_once(browser: Browser) -> None:
    with running(token="hush") as backend, opened(browser, backend.url) as page:
        page.goto("/?status=ok")
        assert violations(page) == []
        page.get_by_label("Token").fill("hush")
        page.keyboard.press("Enter")
        expect(page.locator("#live")).to_be_visible()
        assert page.url == f"{backend.url}/?status=ok"


def test_without_javascript_list_and_request_can_be_read(browser: Browser, backend: Backend) -> None:
    request_id = a_request(backend)
    with opened(browser, backend.url, java_script_enabled=False) as page:
        page.goto("/")
        page.get_by_role("link", name="web").click()
        assert page.locator(".rows .title").all_inner_texts() == ["web", "query", "call", "called"]
        page.get_by_role("link", name="called").click()
        assert page.url.endswith(f"/requests/{'t1'}?event=t2%3A0") and request_id not in page.url
        assert "no funds" in page.locator(".panel").inner_text()
