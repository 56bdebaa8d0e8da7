"""What a key is: which names of members, fields, headers and cookies have values that are hidden.

Names are compared as people write them: in any case, and `-`, `_` and blanks do not count, so `API-Key` is `api_key`.
Nor do characters without width, and a letter in another form, as a full-width one, is that letter. `*` in an ignored
key stands for any text, also none.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.patterns import pattern
from epsagon_fast.wildcards import expression

# What usual names of secrets look like. `*token` is not `*token*`, because counts of tokens are no secrets.
DEFAULT_KEYS: Final = (
    *("*password*", "*passwd*", "*passphrase*", "*passcode", "*pwd", "pass"),
    *("*secret*", "*credential*", "*token", "*jwt", "*bearer"),
    *("*api key*", "*access key*", "*account key*", "*private key*", "*auth key*", "*signing key*", "*encryption key*"),
    *("auth", "*authorization", "x amz signature", "x goog signature", "sig"),
    *("*cookie*", "*session", "*session id", "*session key", "*sess id", "sid", "connect.sid"),
    *("*csrf*", "*xsrf*"),
    *("*credit card*", "*card number", "*cvv", "*cvc", "*ssn"),
)
# Headers that are always hidden, where headers are recorded.
SECRET_HEADERS: Final = ("authorization", "proxy-authorization", "cookie", "set-cookie")
# Characters. A longer name is no name that a person gave. All fragments of such a name are looked at instead.
_LONGEST_NAME: Final = 256
_UNCOUNTED: Final = str.maketrans("", "", "-_ ")
# What a byte search can look for: text that JSON, URLs and forms write in one way only.
_FRAGMENT: Final = pattern(r"[a-z0-9.]+")
# Letters of a fragment. A part of it is found with it, and a short one in few steps.
_LONGEST_FRAGMENT: Final = 32
# `user[password]` and `password[]` are fields named password.
_BRACKETS: Final = pattern(r"[\[\]]+")


# SQL's way to say what a password is, without a name of its own.
_IDENTIFIED: Final = (b"identified", "password")


def normalized(name: str) -> str:
    """Return a name without what does not count in it."""
    return (name if name.isascii() else _simple(name)).translate(_UNCOUNTED).casefold()


def _simple(name: str) -> str:
    # Imported here, because few names need it: see producer/late_imports.py.
    try:
        from unicodedata import category, normalize
    except ImportError as error:
        # The process lost its files (a chroot, a replaced environment) before its first trace.
        let_pass(error)
        return name
    # One by one: all at once, long runs of accents take time that grows with their square.
    return "".join(normalize("NFKC", each) for each in name if category(each) != "Cf")


class Keys:
    """The ignored keys of one config.

    `fragments`: for each key a text that stands, normalized, in each name that it means. None: one key has no such
    text, so that no search can say that it is absent.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        patterns = {normalized(key) for key in keys}
        self._exact = frozenset(each for each in patterns if "*" not in each)
        self._wild = _wild(sorted(patterns - self._exact))
        # Names come again and again, and a pattern for all keys takes microseconds.
        self._is_known = lru_cache(maxsize=4096)(self._matches)
        self.fragments = _fragments(patterns)
        if self.fragments is not None and _IDENTIFIED[1] in self:
            self.fragments += (_IDENTIFIED[0],)

    def __bool__(self) -> bool:
        return bool(self._exact) or self._wild is not None

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return self._is_known(name) if len(name) <= _LONGEST_NAME else self._matches(name)

    def _matches(self, name: str) -> bool:
        if self._means(normalized(name)):
            return True
        return "[" in name and any(self._means(normalized(part)) for part in _BRACKETS.split(name) if part)

    def _means(self, name: str) -> bool:
        return name in self._exact or (self._wild is not None and self._wild.search(name) is not None)


def _wild(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return what searches a name for one of the patterns. Those with one part only are looked for in one go."""
    kinds: dict[tuple[bool, bool], list[str]] = {}
    others = []
    for each in patterns:
        part = each.strip("*")
        if "*" in part:
            others.append(each)
        else:
            kinds.setdefault((not each.startswith("*"), not each.endswith("*")), []).append(re.escape(part))
    found = [
        (r"\A" if begins else "") + f"(?:{'|'.join(parts)})" + (r"\Z" if ends else "")
        for (begins, ends), parts in kinds.items()
    ]
    found += [rf"\A(?:{expression(others)})\Z"] if others else []
    return re.compile("|".join(found), re.DOTALL) if found else None


def _fragments(patterns: Iterable[str]) -> tuple[bytes, ...] | None:
    found = []
    for each in patterns:
        fragment = max(_FRAGMENT.findall(each), key=len, default="")
        if not fragment:
            return None
        found.append(fragment[:_LONGEST_FRAGMENT].encode())
    # One that holds another is found with it.
    return tuple(sorted(each for each in found if not any(other != each and other in each for other in found)))
