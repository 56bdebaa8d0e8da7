"""Makes foreign texts safe to log and print: those of a server, a proxy, another program, a file name, a setting.

A foreign text may hold a terminal's escapes, a line end followed by what looks like another log line, a megabyte, or,
if it is a URL, a password. So every foreign text passes through this module before it is logged or printed.
"""

from epsagon_fast.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib.parse import SplitResult

SHOWN_CHARACTERS = 200
_HOST_CHARACTERS = 253


def shown(said: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return a text as repr shows it: at most `limit` of its characters, then dots.

    said: a text, bytes of UTF-8, or an exception, of which its text is shown. Of anything else its repr is shown.
    """
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    if not isinstance(said, (str, BaseException)):
        return _cut(escaped(repr(said)), limit)
    text = str(said)
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."


def escaped(text: str) -> str:
    """Return a text with each unprintable character as repr writes it: \\x1b for an escape.

    Use it for a line that contains foreign texts, such as paths and errors of the system.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def url_parts(url: str) -> "SplitResult":
    """Return the parts of a URL as `urlsplit` does. Raises ValueError."""
    # Most processes never need it, and in the collector what sends has loaded it, beside the loop.
    from urllib.parse import urlsplit

    return urlsplit(url)


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: the part that cannot hold a secret."""
    try:
        parts = url_parts(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an unreadable URL"
    if not host or len(host) > _HOST_CHARACTERS or not host.isprintable() or "\\" in host:
        return "an unreadable URL"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}" + (f":{port}" if port else "")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
