"""How far this machine's clock is from the backend's, by the header `Date` of an answer."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.config.environment import ca_file, proxy_for
from epsagon_fast.config.values import posted_url
from epsagon_fast.foreign import origin

from .finding import Finding, odd, well

TIMEOUT_S = 5.0
# `Date` has whole seconds, and an answer takes its time.
TOLERANCE_S = 2.0


def finding(config: ResolvedConfig) -> Finding:
    """Ask the backend's root, with no token, and compare."""
    import urllib3

    try:
        before = time.time()
        answer = _pool(config.collector_url).request("HEAD", origin(posted_url(config.collector_url)), redirect=False)
        after = time.time()
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (urllib3.exceptions.HTTPError, KeyError, ValueError):
        return well("clock", "the backend does not tell its time")
    return compared(theirs, before, after)


def compared(theirs: float, before: float, after: float) -> Finding:
    """Return the finding of a time that the backend told between two times of this machine, in seconds since 1970."""
    ahead = before - TOLERANCE_S - theirs
    behind = theirs - after - TOLERANCE_S
    if ahead <= 0 and behind <= 0:
        return well("clock", "goes with the backend's")
    by = f"{ahead + TOLERANCE_S:.0f} s ahead of" if ahead > 0 else f"{behind + TOLERANCE_S:.0f} s behind"
    text = f"this machine is {by} the backend's, so traces seem to come at another time than they do"
    return odd("clock", text, "set the clock of both by NTP", about="epsagon-fast doctor")


def _pool(url: str) -> Any:
    import urllib3

    options: dict[str, Any] = {"retries": False, "timeout": TIMEOUT_S, "ca_certs": ca_file()}
    proxy = proxy_for(url)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
