"""Names in which `*` stands for any text, as options take them."""

import re
from collections.abc import Iterable


def expression(names: Iterable[str]) -> str:
    """Return a regular expression that fits the names as a whole, and nothing if there are none.

    `.` must fit all characters. Each part is looked for once, from where the one before it ended: a text of which every
    end would be tried again for every beginning takes seconds for a megabyte.
    """
    return "|".join(map(_one, names)) or "(?!)"


def _one(name: str) -> str:
    first, *parts = map(re.escape, re.split(r"\*+", name))
    if not parts:
        return first
    *between, last = parts
    return first + "".join(f"(?>.*?{part})" for part in between) + f".*{last}"
