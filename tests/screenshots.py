"""The pictures in the README and docs/backend.md, of what `epsagon-fast demo` does: `make screenshots`."""

import sys
from pathlib import Path

from browsers import chromium, opened

import epsagon_fast.commands.demo.stage as stages
from epsagon_fast.backend import Store
from epsagon_fast.commands.demo.visit import scene

IMAGES = Path(__file__).parents[1] / "docs" / "images"
# What the task of the most telling order fails with.
FAILURE = "SoldOut"
# The event whose details are shown: the statement that takes long.
CHOSEN = ".event:has-text('SELECT') >> nth=0"
# What the demo takes, and a little more.
SPAN = "20s"


def telling_request(database: str) -> str:
    """Return the id of the request whose task has failed."""
    with Store(database) as store:
        (found,) = (row["http_trace_id"] for row in store.page(1000) if row["error_type"] == FAILURE)
        return str(found)


def take(stage: stages.Stage) -> None:
    """Write the pictures of all that is at the demo's backend."""
    IMAGES.mkdir(exist_ok=True)
    wide, phone = {"viewport": {"width": 1280, "height": 720}}, {"viewport": {"width": 360, "height": 720}}
    low, dark = {"viewport": {"width": 1280, "height": 560}}, {**wide, "color_scheme": "dark"}
    request = f"/requests/{telling_request(stage.database)}"
    with chromium() as browser:
        for name, path, options in (
            ("list", "/", wide),
            ("request", request, low),
            ("dark", request, dark),
            ("operations", f"/operations?since={SPAN}", wide),
            ("phone", "/", phone),
        ):
            with opened(browser, stage.url, **options) as page:
                page.goto(path)
                page.wait_for_selector("#live:visible, .rows.virtual, .operations")
                if path == request:
                    page.click(CHOSEN)
                page.screenshot(path=IMAGES / f"{name}.png")
                print(IMAGES / f"{name}.png")


def main() -> int:
    """Run the demo, and write the pictures before it ends."""
    with stages.ends_by_signals(), stages.stage() as stage:
        return scene(stage, take)


if __name__ == "__main__":
    sys.exit(main())
