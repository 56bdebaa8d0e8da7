"""The events that are recorded in benches: complete, with strings made anew for each, as a program makes them."""

from typing import Any


def event(number: int, values: int, characters: int) -> dict[str, Any]:
    """Return a complete event with so many metadata values of so many characters."""
    text = f"{number:08d}/path?q=" + "x" * characters
    return {
        "id": f"{number:032x}",
        "start_time": 1700000000.25 + number,
        "resource": {
            "name": f"shop-{number}",
            "type": "http",
            "operation": "GET",
            "metadata": {f"key_{key}": text[key : key + characters] for key in range(values)},
        },
        "origin": "sdk",
        "duration": 0.0125,
        "error_code": 0,
        "exception": None,
    }


def of_size(number: int, size_bytes: int) -> dict[str, Any]:
    """Return a complete event of about 200 B, of 1 KB (10 values of 80 characters), or of any more."""
    if size_bytes <= 300:
        return event(number, 1, 20)
    return event(number, 20, size_bytes // 20) if size_bytes > 4000 else event(number, max(1, size_bytes // 100), 80)
