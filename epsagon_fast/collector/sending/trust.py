"""Which certificates a destination's server may show, and which one we show it: files, each read once.

OpenSSL is given no path of trusted certificates: it would open a FIFO too, and wait for its writer. A certificate of
our own it takes by path only, so that is looked at first.
"""

import errno
import os
import re
import ssl
import stat
from contextlib import suppress
from functools import partial

from epsagon_fast.collector.parcel import TlsFiles
from epsagon_fast.collector.sending.deadline import TLSSocket
from epsagon_fast.collector.sending.lookups import lookups

# The largest bundles in use have half a megabyte.
MAX_CA_BYTES = 16 * 1024 * 1024
# The names that OpenSSL looks for in a directory: a hash of the subject, and a number.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def context(files: TlsFiles, timeout_s: float) -> ssl.SSLContext:
    """Return a context that trusts the certificates in `files.ca`, a file or a directory; None: those of this system.

    It shows `files.certificate` to a server that asks. Raises OSError if a file cannot be read or does not hold what it
    should, with `filename` saying which it is in words; TimeoutError if reading takes longer than timeout_s.
    """
    return lookups.ask(("trust", files), partial(_context, files), timeout_s)


def _context(files: TlsFiles) -> ssl.SSLContext:
    made = _trusting(files.ca)
    if files.certificate:
        _show(made, files.certificate, files.key)
    return made


def _show(made: ssl.SSLContext, certificate: str, key: str | None) -> None:
    try:
        for path in (certificate, key or certificate):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
        # An encrypted key fails with this. Without it OpenSSL would ask for its password on a terminal.
        made.load_cert_chain(certificate, key, password="")
    except OSError as error:
        # OpenSSL's errors may name a path. No log needs it: the config that named it is the user's own.
        raise OSError(error.errno, error.strerror or "unreadable", "client certificate or its key") from error


def _trusting(ca_file: str | None) -> ssl.SSLContext:
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
