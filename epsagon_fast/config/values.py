"""The kinds of options: which values they take from code, and how a text of the environment is read."""

import math
import os
import re
from collections.abc import Callable, Mapping, Set
from functools import lru_cache

from epsagon_fast.foreign import origin, shown
from epsagon_fast.hints import Any
from epsagon_fast.interrupts import let_pass
from epsagon_fast.pages import see
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK, OTLP_TRACES_PATH
from epsagon_fast.rows import NamedTuple

# A socket raises OverflowError for a much larger timeout, and no application waits an hour for a trace.
MAX_TIMEOUT_S = 3600.0

_BOOLS = {"TRUE": True, "1": True, "YES": True, "ON": True, "FALSE": False, "0": False, "NO": False, "OFF": False}
_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001}
# Names of this machine that need no look-up.
_HERE = r"localhost|.*\.localhost|127(\.[0-9]{1,3}){3}|\[::1\]"
# What may stand before the `+` of a scheme: the formats of collector/formats/choice.py.
_OTLP = r"otlp(?:-protobuf)?\+"
_HEADER_NAME = pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These say how a body is sent, which the sender alone knows.
_OF_THE_BODY = {"content-length", "content-encoding", "transfer-encoding", "connection"}
_URL = (
    rf"({_OTLP})?"
    r"https?://(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\\\[\]]+)(:(?P<port>[0-9]{1,5}))?([/?#]\S*)?"
)


# Where OTLP over HTTP is spoken by custom.
OTLP_PORT = "4318"


class Option(NamedTuple):
    """One option. `default`: None if only `Config.resolve` knows it."""

    variable: str | None
    default: Any
    # The allowed values, in words for an error's text.
    allowed: str
    types: tuple[type, ...]
    fits: Callable[[Any], bool]
    # Turns an accepted value into the one that is kept: one hashable type per option.
    keep: Callable[[Any], Any]
    # Turns a text of the environment into a value; raises ValueError or KeyError if it is none.
    parse: Callable[[str], Any] = str
    is_secret: bool = False
    is_url: bool = False
    # Returns what is wrong with a value that does not fit, "" if the allowed values say all about it.
    why: Callable[[Any], str] = lambda value: ""

    def shown(self, value: object) -> str:
        """Return a value as an error or a warning may show it."""
        if self.is_secret:
            return MASK
        # A URL's user, path and query may hold secrets.
        return origin(value) if self.is_url and isinstance(value, str) else shown(value)

    def accept(self, name: str, value: Any) -> Any:
        """Return `value` as it is kept. TypeError or ValueError name the option, the value and what is allowed."""
        if not self._is_of_type(value):
            raise TypeError(
                f"{name}={self.shown(value)} has a wrong type: {name} must be {self.allowed}{see('options')}"
            )
        if not self.fits(value):
            raise ValueError(f"{name}={self.shown(value)} is refused: {self.reason(name, value)}{see('options')}")
        return self.keep(value)

    def reason(self, name: str, value: Any) -> str:
        """Return why a value does not fit, in words for an error's text."""
        why = self.why(value)
        return f"{name} must be {self.allowed}" + (f" ({why})" if why else "")

    def _is_of_type(self, value: Any) -> bool:
        # A bool is an int to isinstance, but True is no size.
        of_type = isinstance(value, self.types) and (bool in self.types or not isinstance(value, bool))
        return of_type and (list not in self.types or all(isinstance(each, str) for each in value))


def text(variable: str, default: str) -> Option:
    """A text that goes into JSON and file names as it is."""
    return Option(variable, default, "a str that UTF-8 can encode, without NUL", (str,), is_plain, str)


def flag(variable: str | None, default: bool) -> Option:
    """A yes or no."""
    allowed = "a bool (in the environment: TRUE, 1, YES, ON, FALSE, 0, NO or OFF)"
    return Option(variable, default, allowed, (bool,), lambda value: True, bool, lambda text: _BOOLS[text.upper()])


def size(variable: str, default: int, low: int, high: int) -> Option:
    """A number of bytes."""
    allowed = f"an int from {low} to {high}"
    return Option(variable, default, allowed, (int,), lambda value: low <= value <= high, int, _parse_int)


def seconds(variable: str, default: float, positive: bool) -> Option:
    """The longest time to wait."""
    low = "more than" if positive else "at least"
    allowed = f"seconds, {low} 0 and at most {MAX_TIMEOUT_S:g} (in the environment also as 250ms or 1.5s)"
    return Option(variable, default, allowed, (int, float), lambda s: _in_time(s, positive), float, seconds_in)


def path(variable: str, default: str | None) -> Option:
    """A directory."""
    return Option(
        variable,
        default,
        "a path (str or os.PathLike, '' for the default) that UTF-8 can encode",
        (str, os.PathLike),
        lambda path: isinstance(os.fspath(path), str) and is_plain(os.fspath(path)),
        lambda path: absolute(os.fspath(path)),
    )


def headers(variable: str) -> Option:
    """HTTP headers, which are as secret as a token."""
    allowed = "a mapping of header names to texts of printable ASCII (in the environment: name=value, by commas)"
    return Option(variable, (), allowed, (Mapping, tuple), _are_headers, _keep_pairs, _parse_headers, is_secret=True)


def attributes() -> Option:
    """Names with a text, a bool or a number each; only in code."""
    allowed = "a mapping of str to str, bool, an int of 64 bits or a finite float"
    return Option(None, (), allowed, (Mapping, tuple), _are_attributes, _keep_pairs)


def names(variable: str) -> Option:
    """Several names; none by default."""
    allowed = "a list, tuple or set of str (in the environment: separated by commas)"
    types = (list, tuple, set, frozenset)
    return Option(variable, (), allowed, types, lambda names: all(map(is_plain, names)), _keep_names, _parse_names)


def hook() -> Option:
    """A function that each event passes; only in code."""
    return Option(
        None, None, "a function of one event that returns it, or None", (object,), callable, lambda hook: hook
    )


def token(variable: str) -> Option:
    """A bearer token, which becomes part of an HTTP header."""
    allowed = "a str of printable ASCII without spaces"
    return Option(variable, "", allowed, (str,), _is_token, str, is_secret=True)


def url(variable: str) -> Option:
    """The URL of a backend."""
    allowed = "an http:// or https:// URL without user name or password, for OTLP with otlp+ before it"
    return Option(variable, None, allowed, (str,), is_url, str, is_url=True, why=host_fault)


def choice(variable: str, *values: str, default: str | None = None) -> Option:
    """One of a few words; in the environment in any case."""
    allowed = " or ".join(map(repr, values))
    words = {value.upper(): value for value in values}
    fits, parse = values.__contains__, lambda text: words[text.upper()]
    return Option(variable, default, allowed, (str,), fits, str, parse)


def is_plain(text: str) -> bool:
    """Say whether UTF-8 can encode a text and it holds no NUL."""
    return text.isprintable() or not any("\ud800" <= c <= "\udfff" or c == "\0" for c in text)


def absolute(path: str) -> str:
    """Return an absolute path, because the collector's working directory is /."""
    try:
        return os.path.abspath(path) if path else ""
    except OSError as error:
        let_pass(error)
        # The working directory was deleted.
        return path


def goes_in_clear(url: str) -> bool:
    """Say whether others on the way can read what is sent to `url`."""
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    host = found["host"].lower() if found and posted_url(url).lower().startswith("http://") else "localhost"
    return not re.fullmatch(_HERE, host) and host != os.uname().nodename.lower()


def stays_here(url: str) -> bool:
    """Say whether what is sent to `url` does not leave this machine."""
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    return found is not None and re.fullmatch(_HERE, found["host"].lower()) is not None


# Each trace asks it several times, of the same URL.
@lru_cache(maxsize=16)
def is_otlp(url: str) -> bool:
    """Say whether traces go to a URL as OTLP."""
    return re.match(_OTLP, url, re.IGNORECASE) is not None


def wants_protobuf(url: str) -> bool:
    """Say whether traces go to a URL as OTLP in protobuf."""
    return is_otlp(url) and "-" in url.partition("+")[0]


def otlp_url(url: str) -> str | None:
    """Return the URL to name instead of one that looks like OTLP and does not say so; None: it does not look so."""
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    if found is None or is_otlp(url):
        return None
    path = re.split("[?#]", url)[0]
    looks_so = found["port"] == OTLP_PORT or path.rstrip("/").endswith(OTLP_TRACES_PATH)
    # Not the rest of it, which may hold a secret.
    return f"otlp+{origin(url)}" if looks_so else None


def posted_url(url: str) -> str:
    """Return a backend's URL without the name of its format."""
    return re.sub(f"^{_OTLP}", "", url, flags=re.IGNORECASE)


def is_url(url: str) -> bool:
    """Say whether traces can be sent to a URL."""
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    if found is None or not found["host"].isascii():
        return False
    return url.isprintable() and int(found["port"] or 80) <= 65535


def host_fault(url: str) -> str:
    """Return what is wrong with a URL's host if it is not ASCII, "" if it is.

    What turns such a name into the one that is looked up is no part of Python's HTTP, nor of ours.
    """
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    if found is None or found["host"].isascii():
        return ""
    try:
        # The old rules, by which two letters and two joiners become other names than by the new ones.
        name = "" if set(found["host"]) & set("\xdf\u03c2\u200c\u200d") else found["host"].encode("idna").decode()
    except UnicodeError:
        name = ""
    return f"its host must be in ASCII, in its IDNA form: {name or 'xn--...'}"


def is_header(name: str, value: str) -> bool:
    """Say whether an HTTP header may have this name and this value."""
    is_name = _HEADER_NAME.fullmatch(name) is not None and name.lower() not in _OF_THE_BODY
    return is_name and value.isascii() and value.isprintable()


def pairs_in(text: str, in_keys: bool = False) -> list[tuple[str, str | None]]:
    """Return the pairs in a text as `name=value,name=value`, with percent-encoded values; None: it has no `=`.

    `in_keys`: the names are percent-encoded too.
    """
    if not text.strip():
        return []
    # Imported here, because few programs set such a variable and all would wait for the import.
    from urllib.parse import unquote

    pairs = (each.partition("=") for each in text.split(",") if each.strip())
    name_of = unquote if in_keys else str
    return [(name_of(name.strip()), unquote(value.strip()) if equals else None) for name, equals, value in pairs]


def _keep_pairs(pairs: Any) -> tuple[tuple[str, Any], ...]:
    # A tuple can be compared and hashed with its config.
    return tuple(pairs.items()) if isinstance(pairs, Mapping) else pairs


def _are_headers(headers: Any) -> bool:
    return all(
        isinstance(name, str) and isinstance(value, str) and is_header(name, value)
        for name, value in _keep_pairs(headers)
    )


def _are_attributes(attributes: Any) -> bool:
    return all(
        isinstance(name, str) and name and is_plain(name) and _is_attribute(value)
        for name, value in _keep_pairs(attributes)
    )


def _is_attribute(value: object) -> bool:
    if isinstance(value, str):
        return is_plain(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _parse_headers(text: str) -> dict[str, Any]:
    # A value of None is refused then.
    return dict(pairs_in(text))


def _is_token(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token


def _in_time(value: float, positive: bool) -> bool:
    return math.isfinite(value) and 0 <= value <= MAX_TIMEOUT_S and not (positive and value == 0)


def _keep_names(names: Any) -> tuple[str, ...]:
    return tuple(sorted(names) if isinstance(names, Set) else names)


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"\+?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def seconds_in(text: str) -> float:
    """Return the seconds that a text says, with the units s and ms. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|s)?", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2] or ""]


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))
