"""The words and facets under which a trace is found, as the tokens of a full-text index.

Such an index intersects its lists by position, so any combination of filters costs about what its rarest part costs.
All tokens are ASCII letters and digits, whatever a trace says: nothing in them means anything to the index's query
language, and its own ideas of what a word is do not come into play.

- `f...`: a facet, the hash of its name and value, as of `status` and `error`
- `w...`: a word in hexadecimal, so that the beginning of a word is the beginning of its token
- `d...`: a step of duration, or a block of steps; four steps double it
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# A trace of half a megabyte can hold 100,000 words. What is beyond these is not found, but shown all the same.
MAX_WORDS = 600
MAX_FACETS = 2000
# Of each text; enough for a message, a path or a statement.
_TEXT_CHARACTERS = 300
_WORD_BYTES = 40

_WORD = re.compile(r"\w+")
_WANTED = re.compile(r"(\w+)(\*?)")
_STEPS_PER_DOUBLING = 4
# 13 days.
_LAST_STEP = 160
# Each step is found as itself and as a part of 4, 16 and 64.
_BLOCKS = (64, 16, 4, 1)


def facet(name: str, *values: str) -> str:
    """Return the token of a facet: `facet("status", "error")`, `facet("label", "user", "42")`."""
    said = "\0".join((name, *values)).encode("utf-8", "surrogatepass")
    return "f" + hashlib.blake2b(said, digest_size=8).hexdigest()


def words(text: str) -> Iterator[str]:
    """Yield the token of each word of a text, whatever its case."""
    for word in _WORD.findall(text.casefold()):
        yield "w" + word.encode("utf-8", "surrogatepass")[:_WORD_BYTES].hex()


def wanted_words(text: str) -> list[str]:
    """Return what finds the traces that have all words of `text`; a star behind one stands for any end of it.

    The star has its price: the lists of all words that begin so are merged before the first trace is found.
    """
    found = []
    for word, star in _WANTED.findall(text.casefold()):
        (token,) = words(word)
        found.append(token + star)
    return found


def step(duration_s: float) -> int:
    """Return a duration's step, 0 to 160."""
    microseconds = duration_s * 1e6
    return min(_LAST_STEP, int(_STEPS_PER_DOUBLING * math.log2(microseconds))) if microseconds > 1 else 0


def steps(shortest_s: float, longest_s: float) -> str:
    """Return what finds durations between the two; those at the ends still have to be compared."""
    found, here, last = [], step(shortest_s), step(longest_s)
    while here <= last:
        # The largest block that begins here and does not go too far: few lists to read instead of a hundred.
        block = next(size for size in _BLOCKS if here % size == 0 and (here + size - 1 <= last or size == 1))
        found.append(_block(here, block))
        here += block
    return " OR ".join(found)


def _block(first: int, block: int) -> str:
    return f"d{block}x{first // block}"


def of(trace: Mapping[str, Any], facets: Mapping[str, str | None], duration_s: float | None) -> str:
    """Return a trace's tokens. `facets`: those that its summary knows, by name."""
    found = dict.fromkeys(_facets(trace, facets))
    most = len(found) + MAX_WORDS
    for word in _all_words(trace, facets):
        if len(found) >= most:
            break
        found[word] = None
    if duration_s is not None:
        found.update((_block(step(duration_s), block), None) for block in _BLOCKS)
    return " ".join(found)


def _facets(trace: Mapping[str, Any], facets: Mapping[str, str | None]) -> list[str]:
    found = dict.fromkeys(facet(name, value) for name, value in facets.items() if value is not None)
    for event in trace["events"]:
        for key, value in event["resource"]["metadata"].items():
            if len(found) >= MAX_FACETS:
                break
            found[facet("attr", key, value)] = None
            if key == "labels":
                found.update((facet("label", name, each), None) for name, each in labels(value)[:MAX_FACETS])
    return list(found)


def labels(text: str) -> list[tuple[str, str]]:
    """Return the labels in a runner's metadata, which has them as JSON; none if it is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, dict):
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in found.items()]


def _all_words(trace: Mapping[str, Any], facets: Mapping[str, str | None]) -> Iterable[str]:
    for value in facets.values():
        yield from words((value or "")[:_TEXT_CHARACTERS])
    # From the end: there the runner stands, and what was done last.
    for event in reversed(trace["events"]):
        resource, exception = event["resource"], event["exception"] or {}
        texts = [event["id"], resource["name"], resource["type"], resource["operation"], exception.get("message", "")]
        for text in (*texts, *resource["metadata"].values()):
            yield from words(text[:_TEXT_CHARACTERS])
    for exception in trace["exceptions"]:
        yield from words(exception["message"][:_TEXT_CHARACTERS])
