"""Under which names the backend answers.

A web page may have its own name point to this machine, and its browser then takes the backend for that page's server:
all traces could be read there. What the browser still tells is the page's name, in the header `Host`.
"""

import ipaddress
import socket
from collections.abc import Iterable

from epsagon_fast.digits import number


class Hosts:
    """The names and addresses of this machine under which a backend that listens on `host` is meant to be found.

    more: other names for it, as of a container in its network.
    """

    def __init__(self, host: str, more: Iterable[str] = ()) -> None:
        address = _address(host)
        # An address in a URL is no name that somebody could have pointed here.
        self._any_address = not host or (address is not None and address.is_unspecified)
        own = [socket.gethostname()] if self._any_address else []
        self._names = {name.lower() for name in (host, *own, *more)}

    def hold(self, header: str) -> bool:
        """Say whether a header `Host`, with or without a port, names one of them."""
        name = _without_port(header).lower()
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        address = _address(name)
        return address is not None and (address.is_loopback or self._any_address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return None


def _without_port(header: str) -> str:
    name, colon, port = header.rpartition(":")
    return name if colon and number(port) is not None and (":" not in name or name.endswith("]")) else header
