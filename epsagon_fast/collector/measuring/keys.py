"""The keys of series in the ledger: a word for what is counted, and texts."""

import orjson

REQUEST, DELIVERY = "request", "delivery"
# UTF-8 bytes that are kept of a text.
_TEXT_BYTES = 180


def key_of(kind: str, *texts: str) -> bytes:
    """Return a key. Texts that begin with the same 180 bytes are taken for the same."""
    return orjson.dumps([kind, *map(cut, texts)])


def texts_of(key: bytes, kind: str) -> list[str] | None:
    """Return the texts of a key; None: it is of another kind."""
    try:
        found = orjson.loads(key)
    except ValueError:
        return None
    return found[1:] if isinstance(found, list) and found[:1] == [kind] else None


def cut(text: str) -> str:
    """Return what a key keeps of a text."""
    return text.encode("utf-8", "replace")[:_TEXT_BYTES].decode("utf-8", "ignore")
