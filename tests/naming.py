"""Names of parametrized cases."""

import re


def named(value: object) -> str:
    """Return a value's repr without addresses: the same in every run, and in each of several processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
