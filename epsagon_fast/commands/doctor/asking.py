"""Asks a backend's root, with no token, as the collector would: by the same proxy, with the same CA."""

from collections.abc import Mapping
from typing import Any

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.config.environment import ca_file, proxy_for
from epsagon_fast.config.values import posted_url
from epsagon_fast.foreign import origin

TIMEOUT_S = 5.0


def headers(config: ResolvedConfig) -> Mapping[str, str] | None:
    """Return the headers of its answer, whatever it answers; None if it does not."""
    import urllib3

    try:
        pool = _pool(config.collector_url)
        answer = pool.request("HEAD", origin(posted_url(config.collector_url)), redirect=False)
    except (urllib3.exceptions.HTTPError, ValueError):
        return None
    found: Mapping[str, str] = answer.headers
    return found


def _pool(url: str) -> Any:
    import urllib3

    options: dict[str, Any] = {"retries": False, "timeout": TIMEOUT_S, "ca_certs": ca_file()}
    proxy = proxy_for(url)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
