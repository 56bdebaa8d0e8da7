"""How a person is shown what others said: a server, a proxy, another program, a name in a directory, a setting.

Such a text may hold a terminal's escapes, a line end and what looks like another line of the log, a megabyte, or, if it
is a URL, a password. So no text of others is logged or printed but through here.
"""

SHOWN_CHARACTERS = 200
_HOST_CHARACTERS = 253


def shown(said: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return what was said as repr shows it: at most `limit` of its characters, then dots.

    said: a text, bytes of UTF-8, or an exception, which stands for its text; anything else stands for its own repr.
    """
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    if not isinstance(said, (str, BaseException)):
        return _cut(escaped(repr(said)), limit)
    text = str(said)
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."


def escaped(text: str) -> str:
    """Return a text as it is, but for what is not printable: this becomes what it is in repr, \\x1b for an escape.

    For a line in which texts of others are, paths and errors of the system.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: the part that cannot hold a secret."""
    from urllib.parse import urlsplit  # not needed by a process that has nothing to say

    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an unreadable URL"
    if not host or len(host) > _HOST_CHARACTERS or not host.isprintable() or "\\" in host:
        return "an unreadable URL"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}" + (f":{port}" if port else "")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
