"""Values from the environment: options, the default URL and state directory, the proxy, the CA file."""

import os
import re
import sys

import epsagon_fast.private as private
from epsagon_fast.foreign import shown
from epsagon_fast.hints import Any
from epsagon_fast.log import warn_once

from .options import OPTIONS
from .values import absolute, is_plain, posted_url

CLOSED_SERVICE_URL = "https://{region}.tc.epsagon.com"
DEFAULT_REGION = "us-east-1"
STATE_FOLDER = "epsagon-fast"


def from_environment(name: str) -> Any:
    """Return an option's value from the environment; None if it is unset, empty or (after one warning) not allowed."""
    option = OPTIONS[name]
    text = os.environ.get(option.variable, "") if option.variable else ""
    if not text:
        return None
    if name.endswith("_dir") and private.acts_for_its_caller():
        # The caller could lead this program to places that only the program may write to.
        ignored = "%s is ignored: this program has rights that its caller lacks"
        warn_once(f"{option.variable}", ignored, option.variable, about="options")
        return None
    try:
        return option.accept(name, option.parse(text))
    except (ValueError, TypeError, KeyError):
        message = "%s=%s is ignored: %s"
        said = option.variable, option.shown(text), option.reason("it", text)
        warn_once(f"{option.variable}", message, *said, about="options")
        return None


def default_state_dir() -> str:
    """Return the default directory for stored traces; "" without a home: the collector then uses its own folder."""
    if private.acts_for_its_caller():
        return ""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = os.path.expanduser("~")
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, STATE_FOLDER) if os.path.isabs(base) and is_plain(base) else ""


def default_url(warn: bool) -> str:
    """Return the URL of Epsagon's service, which is closed. `warn`: traces would go there, so a warning says it."""
    region = os.environ.get("AWS_REGION") or DEFAULT_REGION
    if not re.fullmatch(r"[A-Za-z0-9-]+", region):
        message = "AWS_REGION=%s is ignored: it must be letters, digits and hyphens"
        warn_once("AWS_REGION", message, shown(region), about="options")
        region = DEFAULT_REGION
    url = CLOSED_SERVICE_URL.format(region=region)
    if warn:
        message = (
            "No backend is named, so traces go to %s, a service that is closed. Name yours with "
            "init(collector_url=...) or EPSAGON_COLLECTOR_URL; `epsagon-fast backend` starts one for development"
        )
        warn_once("collector_url", message, url, about="a backend")
    return url


def may_need_proxy() -> bool:
    """Say whether a proxy must be looked up. The look-up imports urllib.request, which takes some 20 ms."""
    # On macOS the look-up also asks the system's settings.
    named = any(name.lower() in ("http_proxy", "https_proxy") and value for name, value in os.environ.items())
    return named or sys.platform == "darwin"


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy that the environment names for `url`, or None."""
    if not may_need_proxy():
        return None
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(posted_url(url))
    proxy = getproxies().get(parts.scheme)
    if not proxy or not is_plain(proxy) or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def ca_file() -> str | None:
    """Return the file of trusted certificates that the environment names, or None."""
    path = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    return absolute(path) if path and is_plain(path) else None
