from collections.abc import Mapping

from epsagon_fast.collector.formats.conventions import Words
from epsagon_fast.collector.formats.plain_terms import PlainTerms

# Id, parent's id, words, origin, seconds or nanoseconds of the start, seconds of the duration, the members of the list
# of attributes, marks, the route.
Plain = tuple[str, str | None, Words, str, int | float, int | float, bytes, int, str | None]

def plain(event: bytes, terms: Mapping[str, tuple[PlainTerms, PlainTerms] | None], is_runner: bool) -> Plain | None: ...
