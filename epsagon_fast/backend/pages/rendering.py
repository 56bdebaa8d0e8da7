"""How values are written on a page, and how a page is made of a template."""

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from epsagon_fast.amounts import counted, size
from epsagon_fast.backend.outline import cut, duration, moment
from epsagon_fast.foreign import escaped
from epsagon_fast.version import __version__

HERE = Path(__file__).parent
# Of a bar's drawing; a rectangle in it has this many units for the longest.
BAR_UNITS = 10_000
_LINE_CHARACTERS = 200


def iso(value: float | None) -> str:
    """Return a time for machines."""
    return "" if value is None else datetime.fromtimestamp(value).astimezone().isoformat(timespec="microseconds")


def line(text: object, characters: int = _LINE_CHARACTERS) -> str:
    """Return a text as one line: what is not printable as in repr, too long ones with dots."""
    return cut(text, characters)


def lines(text: str) -> str:
    """Return a text of several lines; what else is not printable is written as in repr."""
    return "\n".join(escaped(each.replace("\t", "    ")) for each in text.replace("\r\n", "\n").split("\n"))


def bar(start: float, length: float, kind: str = "", marks: Any = ()) -> Markup:
    """Return a bar's drawing; start and length are parts of the whole, 0 to 1. `marks`: (start, length) below it."""
    drawn = [
        f'<rect class="{kind or "whole"}" x="{_units(start)}" width="{max(1, _units(length))}" y="0" height="10"/>'
    ]
    drawn += [
        f'<rect class="mark" x="{_units(at)}" width="{max(1, _units(part))}" y="8" height="2"/>' for at, part in marks
    ]
    box = f'viewBox="0 0 {BAR_UNITS} 10" preserveAspectRatio="none"'
    return Markup(f'<svg class="bar" {box} aria-hidden="true" focusable="false">{"".join(drawn)}</svg>')


def _units(part: float) -> int:
    return round(min(1.0, max(0.0, part)) * BAR_UNITS)


def url(path: str, *pairs: tuple[str, object]) -> str:
    """Return an address of this backend, with its query."""
    query = urlencode([(name, str(value)) for name, value in pairs], errors="surrogatepass")
    return path + ("?" + query if query else "")


def segment(text: str) -> str:
    """Return a text as a part of a path."""
    return quote(text, safe="", errors="surrogatepass")


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(duration=duration, size=size, counted=counted, moment=moment, iso=iso, line=line)
_environment.filters.update(lines=lines, segment=segment)
_environment.globals.update(bar=bar, url=url, version=__version__)


def render(template: str, **values: Any) -> str:
    """Return what a template makes of values."""
    # A trace may hold lone surrogates, which no page can.
    return _environment.get_template(template).render(values).encode("utf-8", "replace").decode()


def page(template: str, status: int = 200, **values: Any) -> Response:
    """Return a template as an answer."""
    return HTMLResponse(render(template, **values), status, {"Cache-Control": "no-store"})
