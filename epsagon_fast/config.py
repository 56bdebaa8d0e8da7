"""How a process is to be traced: `Config`, and where each field comes from when code does not say it.

Order: code, then environment, then default. What is wrong in code raises at once; what is wrong in the environment is
logged once and ignored, since whoever sets it cannot see a traceback of ours. This module does no work at import: the
proxy look-up, the only part that needs a heavy import, happens when a trace's config is written and a proxy is set.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import epsagon_fast.private as private
from epsagon_fast.interrupts import let_pass

from .foreign import escaped, origin, shown
from .protocol import DEFAULT_MAX_TRACE_BYTES, MAX_TRACE_BYTES

if TYPE_CHECKING:
    import logging

LOGGER_NAME = "epsagon_fast"
SEED_URL = "https://{region}.tc.epsagon.com"
SEED_REGION = "us-east-1"
STATE_FOLDER = "epsagon-fast"

DEFAULT_RING_BYTES = 512 * 1024
MIN_RING_BYTES = 64 * 1024
MAX_RING_BYTES = 256 * 1024 * 1024
# A ring holds several traces' worth of records, or one burst fills it before the collector's next pass.
RING_BYTES_PER_TRACE_BYTE = 4
# Sockets refuse much larger timeouts with an OverflowError; nobody waits an hour for a trace.
MAX_TIMEOUT_S = 3600.0

_BOOLS = {"TRUE": True, "1": True, "YES": True, "ON": True, "FALSE": False, "0": False, "NO": False, "OFF": False}
_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001}
# Names of this machine that need no look-up.
_HERE = r"localhost|.*\.localhost|127(\.[0-9]{1,3}){3}|\[::1\]"
_URL = r"https?://(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\\\[\]]+)(:(?P<port>[0-9]{1,5}))?([/?#]\S*)?"

# Warnings given in this process, by name.
_warned: dict[str, object] = {}


class _Silent:
    """Stands for a logger where there is none."""

    def _say(self, *_: object) -> None:
        pass

    debug = info = warning = _say


def logger() -> "logging.Logger":
    """Return the package's logger. Its import waits for the first trace: it is a third of all of ours."""
    try:
        import logging
    except ImportError:
        # The first trace of a process that has changed its root before.
        return _Silent()  # type: ignore[return-value]
    return logging.getLogger(LOGGER_NAME)


def warn_once(name: str, message: str, *arguments: object) -> None:
    """Log `message` at WARNING on the package's logger, once per process and name."""
    mine = object()
    # setdefault is one step under the GIL: of twenty threads at their first trace only one warns, and no lock can be
    # left locked by a fork.
    if _warned.setdefault(name, mine) is mine:
        # Names and errors of the system are texts of others.
        plain = [escaped(str(each)) if isinstance(each, (str, OSError)) else each for each in arguments]
        logger().warning(message, *plain)


def forget_warnings() -> None:
    """Let each warning be given once more."""
    _warned.clear()


def _is_plain(text: str) -> bool:
    return text.isprintable() or not any("\ud800" <= c <= "\udfff" or c == "\0" for c in text)


def _parse_bool(text: str) -> bool:
    return _BOOLS[text.upper()]


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"\+?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def _parse_seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|s)?", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2] or ""]


def _parse_keys(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


class _Rule(NamedTuple):
    """What a field may hold and how the environment says it."""

    variable: str | None
    allowed: str
    types: tuple[type, ...]
    fits: Callable[[Any], bool]
    # From what was accepted to what is kept: one type per field, hashable.
    keep: Callable[[Any], Any]
    parse: Callable[[str], Any] = str


def _text(variable: str) -> _Rule:
    return _Rule(variable, "a str that UTF-8 can encode, without NUL", (str,), _is_plain, str)


def _flag(variable: str | None) -> _Rule:
    allowed = "a bool (in the environment: TRUE, 1, YES, ON, FALSE, 0, NO or OFF)"
    return _Rule(variable, allowed, (bool,), lambda value: True, bool, _parse_bool)


def _size(variable: str, low: int, high: int) -> _Rule:
    return _Rule(variable, f"an int from {low} to {high}", (int,), lambda value: low <= value <= high, int, _parse_int)


def _seconds(variable: str, positive: bool) -> _Rule:
    low = "more than" if positive else "at least"
    allowed = f"seconds, {low} 0 and at most {MAX_TIMEOUT_S:g} (in the environment also as 250ms or 1.5s)"
    return _Rule(variable, allowed, (int, float), lambda s: _in_seconds(s, positive), float, _parse_seconds)


def _in_seconds(value: float, positive: bool) -> bool:
    return math.isfinite(value) and 0 <= value <= MAX_TIMEOUT_S and not (positive and value == 0)


def _path(variable: str) -> _Rule:
    return _Rule(
        variable,
        "a path (str or os.PathLike, '' for the default) that UTF-8 can encode",
        (str, os.PathLike),
        lambda path: isinstance(os.fspath(path), str) and _is_plain(os.fspath(path)),
        lambda path: _absolute(os.fspath(path)),
    )


def _absolute(path: str) -> str:
    """Return the path as it is named from anywhere: the collector's working directory is /."""
    try:
        return os.path.abspath(path) if path else ""
    except OSError as error:
        let_pass(error)
        # The working directory was deleted.
        return path


def _is_url(url: str) -> bool:
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    return found is not None and url.isprintable() and int(found["port"] or 80) <= 65535


def _goes_in_clear(url: str) -> bool:
    """Say whether others on the way can read what is sent to `url`."""
    found = re.fullmatch(_URL, url, re.IGNORECASE)
    host = found["host"].lower() if found and url.lower().startswith("http://") else "localhost"
    return not re.fullmatch(_HERE, host) and host != os.uname().nodename.lower()


def _is_token(token: str) -> bool:
    # It becomes part of an HTTP header.
    return token.isascii() and token.isprintable() and " " not in token


def _are_keys(keys: Any) -> bool:
    return all(isinstance(key, str) and _is_plain(key) for key in keys)


def _keep_keys(keys: Any) -> tuple[str, ...]:
    return tuple(sorted(keys) if isinstance(keys, Set) else keys)


_RULES = {
    "application_name": _text("EPSAGON_APP_NAME"),
    "token": _Rule("EPSAGON_TOKEN", "a str of printable ASCII without spaces", (str,), _is_token, str),
    "collector_url": _Rule(
        "EPSAGON_COLLECTOR_URL", "an http:// or https:// URL without user name or password", (str,), _is_url, str
    ),
    "metadata_only": _flag("EPSAGON_METADATA"),
    "debug": _flag("EPSAGON_DEBUG"),
    "send_timeout_s": _seconds("EPSAGON_SEND_TIMEOUT_SEC", positive=True),
    "disable": _flag("DISABLE_EPSAGON"),
    "test_mode": _flag(None),
    "ignored_keys": _Rule(
        "EPSAGON_IGNORED_KEYS",
        "a list, tuple or set of str (in the environment: separated by commas)",
        (list, tuple, set, frozenset),
        _are_keys,
        _keep_keys,
        _parse_keys,
    ),
    "max_trace_size_bytes": _size("EPSAGON_MAX_TRACE_SIZE", 1, MAX_TRACE_BYTES),
    "runtime_dir": _path("EPSAGON_RUNTIME_DIR"),
    "state_dir": _path("EPSAGON_STATE_DIR"),
    "ring_bytes": _size("EPSAGON_RING_BYTES", MIN_RING_BYTES, MAX_RING_BYTES),
    "shutdown_timeout_s": _seconds("EPSAGON_SHUTDOWN_TIMEOUT_SEC", positive=False),
}
_DEFAULTS: dict[str, Any] = {
    "application_name": "",
    "token": "",
    "metadata_only": True,
    "debug": False,
    "send_timeout_s": 1.0,
    "disable": False,
    "test_mode": False,
    "ignored_keys": (),
    "max_trace_size_bytes": DEFAULT_MAX_TRACE_BYTES,
    "runtime_dir": "",
    "ring_bytes": DEFAULT_RING_BYTES,
    "shutdown_timeout_s": 2.0,
}


def _shown(name: str, value: object) -> str:
    if name == "token":
        return "****"
    # A URL's user, path and query may hold secrets.
    return origin(value) if name == "collector_url" and isinstance(value, str) else shown(value)


def _accepted(name: str, value: Any) -> Any:
    """Return `value` as the field keeps it; TypeError or ValueError name the field, the value and what is allowed."""
    rule = _RULES[name]
    # A bool is an int to isinstance, but True is no size.
    of_type = isinstance(value, rule.types) and (bool in rule.types or not isinstance(value, bool))
    if name == "ignored_keys" and of_type:
        of_type = all(isinstance(key, str) for key in value)
    if not of_type:
        raise TypeError(f"{name}={_shown(name, value)} has a wrong type: {name} must be {rule.allowed}")
    if not rule.fits(value):
        raise ValueError(f"{name}={_shown(name, value)} is refused: {name} must be {rule.allowed}")
    return rule.keep(value)


def _from_environment(name: str) -> Any:
    """Return the field's value of the environment; None if unset, empty or (after one warning) not acceptable."""
    rule = _RULES[name]
    text = os.environ.get(rule.variable, "") if rule.variable else ""
    if not text:
        return None
    if name.endswith("_dir") and private.acts_for_its_caller():
        # It could be led to places that only this program may write to.
        warn_once(f"{rule.variable}", "%s is ignored: this program has rights that its caller lacks", rule.variable)
        return None
    try:
        return _accepted(name, rule.parse(text))
    except (ValueError, TypeError, KeyError):
        message = "%s=%s is ignored: it must be %s"
        warn_once(f"{rule.variable}", message, rule.variable, _shown(name, text), rule.allowed)
        return None


def _default_state_dir() -> str:
    if private.acts_for_its_caller():
        return ""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        base = os.path.join(home, ".local", "state")
    # Without a home there is no lasting place; the collector then uses its own folder.
    return os.path.join(base, STATE_FOLDER) if os.path.isabs(base) and _is_plain(base) else ""


def _default_url(warn: bool) -> str:
    region = os.environ.get("AWS_REGION") or SEED_REGION
    if not re.fullmatch(r"[A-Za-z0-9-]+", region):
        warn_once("AWS_REGION", "AWS_REGION=%s is ignored: it must be letters, digits and hyphens", shown(region))
        region = SEED_REGION
    url = SEED_URL.format(region=region)
    if warn:
        message = (
            "No backend is named, so traces go to %s, a service that is closed. Name yours with "
            "init(collector_url=...) or EPSAGON_COLLECTOR_URL; `epsagon-fast backend` starts one for development"
        )
        warn_once("collector_url", message, url)
    return url


@dataclass(frozen=True, kw_only=True)
class Config:
    """What code says about tracing. None means unset: the environment rules, else the default.

    send_timeout_s, shutdown_timeout_s: seconds. max_trace_size_bytes: UTF-8 bytes of a trace's JSON body. ring_bytes:
    capacity of this process's ring, raised to four times the trace limit. ignored_keys: names of metadata keys that are
    masked. runtime_dir, state_dir: made absolute. Raises TypeError or ValueError for what is not allowed.
    """

    application_name: str | None = None
    token: str | None = field(default=None, repr=False)
    collector_url: str | None = None
    metadata_only: bool | None = None
    debug: bool | None = None
    send_timeout_s: float | None = None
    disable: bool | None = None
    test_mode: bool | None = None
    ignored_keys: list[str] | tuple[str, ...] | Set[str] | None = None
    max_trace_size_bytes: int | None = None
    runtime_dir: str | os.PathLike[str] | None = None
    state_dir: str | os.PathLike[str] | None = None
    ring_bytes: int | None = None
    shutdown_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name in _RULES:
            value = getattr(self, name)
            if value is not None:
                # The class is frozen for its users; this is still its construction.
                object.__setattr__(self, name, _accepted(name, value))

    def resolve(self) -> "ResolvedConfig":
        """Return a Config with no field unset: code, then environment, then default."""
        values: dict[str, Any] = {item.name: self.value(item.name) for item in fields(self)}
        sends = not values["disable"] and not values["test_mode"]
        if sends and not values["token"]:
            warn_once("token", "No token is set (init(token=...) or EPSAGON_TOKEN): no trace is sent")
        if values["collector_url"] is None:
            values["collector_url"] = _default_url(warn=sends and values["token"])
        if sends and values["token"] and _goes_in_clear(values["collector_url"]):
            message = "Traces and their token go to %s unencrypted: https:// keeps them from those on the way"
            warn_once("in clear", message, origin(values["collector_url"]))
        if values["state_dir"] is None:
            values["state_dir"] = _default_state_dir()
        values["ring_bytes"] = max(values["ring_bytes"], RING_BYTES_PER_TRACE_BYTE * values["max_trace_size_bytes"])
        return ResolvedConfig(**values)

    def value(self, name: str) -> Any:
        """Return one field from code, environment or default; None where only `resolve` can tell the default."""
        value = getattr(self, name)
        if value is None:
            value = _from_environment(name)
        return _DEFAULTS.get(name) if value is None else value

    def to_wire(self) -> dict[str, Any]:
        """Return what an OPEN record tells the collector: plain JSON values, proxy and CA file looked up here.

        The collector's own environment is that of whoever started it, so it is not asked.
        """
        config = self.resolve()
        return {
            "app_name": config.application_name,
            "token": config.token,
            "collector_url": config.collector_url,
            "metadata_only": config.metadata_only,
            "debug": config.debug,
            "send_timeout_s": config.send_timeout_s,
            "ignored_keys": list(config.ignored_keys),
            "max_trace_size_bytes": config.max_trace_size_bytes,
            "state_dir": config.state_dir,
            "proxy_url": _proxy_for(config.collector_url),
            "ca_file": _ca_file(),
        }


class ResolvedConfig(Config):
    """A Config of which no field is unset.

    runtime_dir "": the queue chooses a folder. state_dir "": no home directory, the collector's own folder serves.
    """

    application_name: str
    token: str
    collector_url: str
    metadata_only: bool
    debug: bool
    send_timeout_s: float
    disable: bool
    test_mode: bool
    ignored_keys: tuple[str, ...]
    max_trace_size_bytes: int
    runtime_dir: str
    state_dir: str
    ring_bytes: int
    shutdown_timeout_s: float

    @property
    def enabled(self) -> bool:
        """Whether traces are recorded at all: not disabled, and there is a token."""
        return not self.disable and self.token != ""

    def resolve(self) -> "ResolvedConfig":
        """Return this object: nothing is unset."""
        return self


def may_need_proxy() -> bool:
    """Say whether a proxy may have to be looked up, which imports urllib.request: some 20 ms."""
    # On macOS it also asks the system's settings.
    named = any(name.lower() in ("http_proxy", "https_proxy") and value for name, value in os.environ.items())
    return named or sys.platform == "darwin"


def _proxy_for(url: str) -> str | None:
    """Return the URL of the proxy that the environment names for `url`, or None."""
    if not may_need_proxy():
        return None
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or not _is_plain(proxy) or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _ca_file() -> str | None:
    path = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    return _absolute(path) if path and _is_plain(path) else None
