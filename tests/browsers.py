"""A real browser for tests: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from waiting import TIMEOUT_S

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Deque's rules for accessibility, as their npm package axe-core has them.
_AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser. Without one a test is left out; where CI is set that is an error."""
    # A browser of root's has no sandbox; it sees nothing but our own pages.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        # Where the system has none, what `playwright install chromium` has brought.
        named = (*map(shutil.which, _PROGRAMS), playwright.chromium.executable_path)
        program = next((path for path in named if path and os.path.exists(path)), None)
        if program is None:
            assert not os.environ.get("CI"), "chromium is not installed"
            pytest.skip("needs chromium")
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, base_url: str, **options: Any) -> Iterator[Page]:
    """Open an empty page. At its end nothing may have been said on its console, and nobody else been asked.

    options: of a browser's context, as `color_scheme` and `viewport`.
    """
    context = browser.new_context(base_url=base_url, **options)
    context.set_default_timeout(TIMEOUT_S * 1000)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    try:
        yield page
    finally:
        context.close()
    assert said == []
    assert asked <= {urlsplit(base_url).netloc}


def violations(page: Page) -> list[str]:
    """Return what hinders people who cannot see, hear or point, by axe-core's rules; each with its place."""
    # Not as an element of the page: its policy would forbid that.
    page.evaluate(_AXE)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
