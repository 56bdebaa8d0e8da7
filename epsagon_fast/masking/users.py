"""Hides the user in URLs, with the password, whatever it is called."""

from epsagon_fast.hints import Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

_SLASHES: Final = pattern(r":(?:\\*/){2}")
_URL: Final = pattern(r"""[^\s"'<>\\]*+""")
_USER: Final = pattern(r"""[^\s/?#"'<>\\]*@""")
# What begins a password in which stands what a URL should encode: a colon without a port behind it.
_PASSWORD: Final = pattern(r"""(?:|[^\s/?#"'<>\\@:\[]++(?=:(?!\d*+(?:[/?#"'<>\\\s]|\Z)))):""")


def without_users(text: str) -> str:
    """Return a text without the users of its URLs; the same object if there are none."""
    if "@" not in text:
        return text
    parts: list[str] = []
    copied = end = last = 0
    for found in _SLASHES.finditer(text):
        start = found.end()
        if start < copied:
            continue
        if start >= end:
            # The last sign is looked for once for all beginnings of a URL that stand in one another.
            url = _URL.match(text, start)
            end = url.end() if url else start
            last = text.rfind("@", start, end)
        if start > last:
            continue
        if user := _USER.match(text, start):
            last_of_user = user.end()
        elif _PASSWORD.match(text, start):
            last_of_user = last + 1
        else:
            continue
        parts += [text[copied:start], f"{MASK}@"]
        copied = last_of_user
    return "".join([*parts, text[copied:]]) if parts else text
