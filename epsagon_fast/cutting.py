"""Shortens events, exceptions and labels that are too large, so that a part of each can be sent.

A text is cut in the middle, at a line end if one is near, and says there how much is missing. Lengths are bytes of
JSON, in which a quote or a line end takes two. Secrets must be masked before: a key cannot be found in half a text.
"""

import orjson

from epsagon_fast.hints import Any, Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import STRONG_KEYS

Json = dict[str, Any]

# The length of a text in a trace that is too big even when it is stripped.
TEXT_BYTES: Final = 1024
# A text under this key may be so many times longer than another text.
_SHARES: Final = {"traceback": 4}
# The lengths that are tried in turn until an event fits. The first are the limits of a message and a traceback.
LEVELS: Final = tuple((16 * TEXT_BYTES) >> step for step in range(10))
_MARK: Final = "... {} characters left out ..."
# At most 15 digits, because a text of the application may have thousands there, which Python refuses to read.
_MARKS: Final = pattern(r"\.\.\. ([0-9]{1,15}) characters left out \.\.\.")
_MARK_BYTES: Final = len(_MARK) + 20
# A text that would keep less than this on each side of the mark is cut at its end instead.
_LEAST_SIDE_BYTES: Final = 32
_DOTS: Final = "..."


def text(text: str, limit_bytes: int) -> str:
    """Return a text, or its first and last part with a mark in between. UTF-8 must be able to encode it."""
    room = limit_bytes
    size, shorter = json_bytes(text), text
    while size > limit_bytes:
        # Escapes may stand anywhere, so the length of a shorter text is known only when it is made.
        room = min(room - 1, room * limit_bytes // size) if shorter is not text else room
        shorter = _ends(text, room)
        size = json_bytes(shorter)
    return shorter


def texts(value: Any, limit_bytes: int) -> Any:
    """Return a JSON value with each text in it cut to `limit_bytes`, a traceback to four times as much."""
    if isinstance(value, str):
        return text(value, limit_bytes)
    if isinstance(value, dict):
        return {key: texts(each, limit_bytes * _SHARES.get(key, 1)) for key, each in value.items()}
    return [texts(each, limit_bytes) for each in value] if isinstance(value, list) else value


def fitted(value: Any, limit_bytes: int) -> bytes | None:
    """Return a value as JSON in at most `limit_bytes`, its texts cut as far as needed. None: that is not enough."""
    # The first cut goes over megabytes, the later ones over what it left. Cutting twice gives the same as cutting once.
    value = texts(value, LEVELS[0])
    shortest = orjson.dumps(texts(value, LEVELS[-1]))
    if len(shortest) > limit_bytes:
        return None
    cuts = (orjson.dumps(texts(value, level)) for level in LEVELS)
    return next((data for data in cuts if len(data) <= limit_bytes), shortest)


def fitted_event(event: Json, limit_bytes: int) -> bytes | None:
    """Return a masked event as JSON in at most `limit_bytes`. None: not even its stub fits.

    Its texts are cut as in a trace that is too big. If that is not enough, its weak metadata are dropped, then
    everything but a stub.
    """
    data = orjson.dumps(texts(event, TEXT_BYTES))
    if len(data) <= limit_bytes:
        return data
    return fitted(stripped(event), limit_bytes) or fitted_stub(event, limit_bytes)


def fitted_stub(event: Json, limit_bytes: int) -> bytes | None:
    """Return an event's stub as JSON: name, times and error code, and its exception if it fits. None: it does not."""
    exception = event.get("exception")
    if isinstance(exception, dict):
        exception = {**exception, "traceback": "", "additional_data": {}}
    stub = {**event, "resource": {**event["resource"], "metadata": {}}, "exception": exception}
    return fitted(stub, limit_bytes) or fitted({**stub, "exception": None}, limit_bytes)


def stripped(event: Json) -> Json:
    """Return an event with strong metadata only: what `trim` makes of it."""
    resource = event["resource"]
    strong = {key: value for key, value in resource["metadata"].items() if key in STRONG_KEYS}
    return {**event, "resource": {**resource, "metadata": strong}}


def json_bytes(text: str) -> int:
    """Return how long a text is in JSON, without its quotes."""
    return len(orjson.dumps(text)) - 2


def _ends(text: str, room_bytes: int) -> str:
    """Return the first and the last part of a text, in about so many bytes."""
    side = (room_bytes - _MARK_BYTES) // 2
    # "ignore" drops the half of a character that a cut leaves. A character has at least one byte, so encoding `side`
    # characters of a long text is enough.
    if side < _LEAST_SIDE_BYTES:
        side = room_bytes - len(_DOTS)
        return text[:side].encode()[:side].decode(errors="ignore") + _DOTS if side > 0 else ""
    head = text[:side].encode()[:side].decode(errors="ignore")
    tail = text[-side:].encode()[-side:].decode(errors="ignore")
    head, tail, between = _whole_lines(head, tail) if "\n" in text else (head, tail, " ")
    gone = text[len(head) : len(text) - len(tail)]
    # A mark that is cut out now stood for characters that are missing as well.
    missing = len(gone) + sum(int(mark[1]) - len(mark[0]) - 2 for mark in _MARKS.finditer(gone))
    return f"{head}{between}{_MARK.format(missing)}{between}{tail}"


def _whole_lines(head: str, tail: str) -> tuple[str, str, str]:
    """Return both parts, each cut at a line end unless it would lose half of itself, and the text between them."""
    end, begin = head.rfind("\n"), tail.find("\n")
    if end > len(head) // 2:
        head = head[:end]
    if 0 <= begin < len(tail) // 2:
        tail = tail[begin + 1 :]
    return head, tail, "\n"
