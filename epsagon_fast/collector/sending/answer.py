"""What comes of one request: a server's answer, or a failure."""

from typing import Protocol

from epsagon_fast.foreign import shown
from epsagon_fast.rows import NamedTuple


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
