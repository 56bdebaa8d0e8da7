"""Digests of bytes.

hashlib is imported with the first one. It brings OpenSSL's library, a tenth of a collector's start, and most collectors
need no digest before what sends has loaded that library beside the loop.
"""


def blake2b(data: bytes, size: int) -> bytes:
    """Return the BLAKE2b digest of `size` bytes."""
    import hashlib

    return hashlib.blake2b(data, digest_size=size).digest()


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest."""
    import hashlib

    return hashlib.sha256(data).digest()
