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


def lasting(span_s: float) -> str:
    """Return a span of time in the largest unit of which it has a whole number: `30 seconds`, `12 hours`, `7 days`."""
    for unit, unit_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if span_s >= unit_s and span_s % unit_s == 0:
            return counted(int(span_s // unit_s), unit)
    return "1 second" if span_s == 1 else f"{span_s:g} seconds"
