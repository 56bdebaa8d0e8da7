"""What the environment says of requests, in and out: which are not traced, and which status is an error."""

import functools
import os
import re
from collections.abc import Iterable
from typing import Final

from epsagon_fast.digits import number
from epsagon_fast.log import warn_once
from epsagon_fast.wildcards import expression

ENDPOINTS: Final = "EPSAGON_ENDPOINTS_TO_IGNORE"
URLS: Final = "EPSAGON_URLS_TO_IGNORE"
LOWEST_ERROR: Final = "EPSAGON_HTTP_ERR_CODE"
# The status with which a server answers for an application that failed.
SERVER_ERROR: Final = 500


class Patterns:
    """Names of which `*` stands for any text, also none. Case counts."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = re.compile(expression(sorted(set(names))), re.DOTALL)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._names.fullmatch(name) is not None


class Urls:
    """URLs of outgoing requests, with or without a scheme.

    A name stands for each host, or host and port, that it is a part of; one with a path or `*` for host and path.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = {name.lower().rpartition("://")[2].rstrip("/") for name in names} - {""}
        self._parts = tuple(name for name in names if "*" not in name and "/" not in name)
        self._wild = _patterns(names.difference(self._parts))

    def have(self, host: str, path: str, port: int | None = None) -> bool:
        """Say whether a request to a host, in lower case, is one of them."""
        with_port = f"{host}:{port}"
        for part in self._parts:
            if part in (with_port if ":" in part else host):
                return True
        return bool(self._wild) and (
            f"{host}{path}".lower() in self._wild or f"{with_port}{path}".lower() in self._wild
        )


def ignored_endpoints() -> "frozenset[str] | Patterns":
    """Return the paths of requests that are not traced."""
    return _endpoints(os.environ.get(ENDPOINTS, ""))


def ignored_urls() -> Urls | None:
    """Return the URLs to which requests are not traced, if there are any."""
    return _urls(os.environ.get(URLS, ""))


def lowest_error() -> int:
    """Return the lowest status of an answer that is an error."""
    return said_lowest_error() or SERVER_ERROR


@functools.cache
def said_lowest_error() -> int | None:
    """Return what the environment says that `lowest_error` is; None: nothing. What is no status counts as unset."""
    text = os.environ.get(LOWEST_ERROR, "").strip()
    if not text:
        return None
    status = number(text, most=3)
    if status is not None and 100 <= status < 600:
        return status
    warn_once(
        f"{LOWEST_ERROR}={text}",
        "%s=%s is ignored: it is a status from 100 to 599",
        LOWEST_ERROR,
        text,
        about="options",
    )
    return None


def _patterns(names: Iterable[str]) -> "frozenset[str] | Patterns":
    exact = frozenset(names)
    return Patterns(exact) if any("*" in name for name in exact) else exact


# By the text, because `init` of the old names may write it after an integration has begun.
@functools.lru_cache(maxsize=16)
def _endpoints(text: str) -> "frozenset[str] | Patterns":
    return _patterns(_listed(text))


@functools.lru_cache(maxsize=16)
def _urls(text: str) -> Urls | None:
    names = _listed(text)
    return Urls(names) if names else None


def _listed(text: str) -> list[str]:
    return [name for name in map(str.strip, text.split(",")) if name]
