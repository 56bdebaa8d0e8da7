"""Names in which `*` stands for any text, as options take them."""

import re
from collections.abc import Iterable


def expression(names: Iterable[str]) -> str:
    """Return a regular expression that fits the names, and nothing if there are none; `.` must fit all characters."""
    parts = (re.sub(r"\*+", "*", name).split("*") for name in names)
    return "|".join(".*".join(map(re.escape, each)) for each in parts) or "(?!)"
