"""How amounts are written for people: sizes in the unit that fits, three digits, one event and two events."""


def size(value_bytes: float) -> str:
    """Return a number of bytes: `812 B`, `3.4 KiB`, `1 GiB`."""
    unit = "B"
    for following in ("KiB", "MiB", "GiB", "TiB"):
        if value_bytes < 1024:
            break
        value_bytes, unit = value_bytes / 1024, following
    return f"{in_three_digits(value_bytes)} {unit}"


def in_three_digits(number: float) -> str:
    """Return a number with three digits that count, and never with an exponent: `1.5`, `34.2`, `1023`."""
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    said = f"{number:.{digits}f}"
    return said.rstrip("0").rstrip(".") if digits else said


def counted(number: int, noun: str) -> str:
    """Return how many of something there are: `1 event`, `1,204 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
