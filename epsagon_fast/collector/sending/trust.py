"""Which certificates a destination's server may show: a CA file or directory, read once and by content.

OpenSSL is given no path: it would open a FIFO too, and wait for its writer.
"""

import errno
import os
import re
import ssl
import stat
from contextlib import suppress
from functools import partial

from epsagon_fast.collector.sending.deadline import TLSSocket
from epsagon_fast.collector.sending.lookups import lookups

# The largest bundles in use have half a megabyte.
MAX_CA_BYTES = 16 * 1024 * 1024
# The names that OpenSSL looks for in a directory: a hash of the subject, and a number.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def context(ca_file: str | None, timeout_s: float) -> ssl.SSLContext:
    """Return a context that trusts the certificates in `ca_file`, a file or a directory; None: those of this system.

    Raises OSError if it cannot be read or holds no certificate, TimeoutError if reading takes longer than timeout_s.
    """
    return lookups.ask(("trust", ca_file), partial(_context, ca_file), timeout_s)


def _context(ca_file: str | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.sslsocket_class = TLSSocket
    # Not load_default_certs, which obeys SSL_CERT_FILE of the process that happened to start this one.
    system = ssl.get_default_verify_paths()
    for path in (ca_file,) if ca_file else (system.openssl_cafile, system.openssl_capath):
        if os.path.isdir(path):
            _load_directory(made, path)
        elif ca_file or os.path.exists(path):
            made.load_verify_locations(cadata=_read(path))
    return made


def _load_directory(made: ssl.SSLContext, path: str) -> None:
    for name in filter(_HASHED.fullmatch, os.listdir(path)):
        # Many systems' directories have links to certificates that were removed.
        with suppress(OSError):
            made.load_verify_locations(cadata=_read(os.path.join(path, name)))


def _read(path: str) -> str:
    """Return a PEM file's text."""
    # Links are followed, because most systems' bundles are links.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > MAX_CA_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MAX_CA_BYTES} bytes")
        # Comments may hold any bytes, but ssl takes only ASCII.
        text = file.read(MAX_CA_BYTES).decode("ascii", "ignore")
    if not text:
        raise OSError(errno.ENODATA, "no certificate is in it")
    return text
