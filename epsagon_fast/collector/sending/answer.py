"""What comes of one request: a server's answer, or a failure."""

import codecs

from epsagon_fast.foreign import shown
from epsagon_fast.hints import Protocol
from epsagon_fast.rows import NamedTuple

_PAGES = ("text/html", "application/xhtml+xml")
# Of an answer that are looked at to tell whether it is a page.
_PAGE_BYTES = 100


class Headers(Protocol):
    """The headers of an answer."""

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a header."""


class Response(NamedTuple):
    """A server's answer. `body` is empty if it could not be read in time."""

    status: int
    headers: Headers
    body: bytes


class Failure(Exception):
    """No answer came. `reason` is one word; `detail` says more, without a URL's path, a token or credentials in it.

    The text is safe to log: what a proxy or a certificate said is escaped.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {shown(self.detail)}" if self.detail else self.reason


def is_page(response: Response) -> bool:
    """Say whether a page for people answered, as of a login or a portal on the way, or of a wrong path.

    The type alone says little: many a framework gives it to any answer, an empty one too. OTLP's answers are JSON or
    protobuf, and neither begins like a page.
    """
    # First the cheap question, as nearly every answer is none. `in` first takes bytes for a number: six times as long.
    if response.body.find(b"<", 0, _PAGE_BYTES) < 0:
        return False
    begins = response.body[:_PAGE_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()
    if not begins.startswith(b"<"):
        return False
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in _PAGES or begins.lower().startswith((b"<!doctype html", b"<html"))
