"""The README's chart: bars of very different lengths, so on a logarithmic scale that says so. Plain SVG."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 720, 210, 90
ROW, BAR = 34, 20
TOP, BOTTOM = 54, 40
OURS, OTHERS, TEXT, GRID = "#0f766e", "#94a3b8", "#334155", "#cbd5e1"


class Bar(NamedTuple):
    """One way to record an event."""

    name: str
    value_us: float
    ours: bool


def chart(bars: Sequence[Bar]) -> str:
    """Return the chart as SVG: processor time per event, shortest first."""
    bars = sorted(bars, key=lambda bar: bar.value_us)
    low = math.floor(math.log10(bars[0].value_us))
    high = math.ceil(math.log10(bars[-1].value_us))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)
    height = TOP + ROW * len(bars) + BOTTOM

    def x(value_us: float) -> float:
        return LEFT + (math.log10(value_us) - low) * scale

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="14" role="img" aria-label="Processor time of an event">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="30" fill="{TEXT}" font-weight="600">Processor time to record one event of 1 KB, in the '
        "traced process</text>",
    ]
    foot = TOP + ROW * len(bars)
    for power in range(low, high + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 22}" fill="{TEXT}" text-anchor="middle">{10**power:g} µs</text>')
    for number, bar in enumerate(bars):
        top = TOP + ROW * number + (ROW - BAR) / 2
        middle = top + BAR / 2 + 5
        weight = ' font-weight="600"' if bar.ours else ""
        fill = OURS if bar.ours else OTHERS
        parts.append(
            f'<text x="{LEFT - 10}" y="{middle:.1f}" fill="{TEXT}" text-anchor="end"{weight}>{escape(bar.name)}</text>'
        )
        end = x(bar.value_us)
        parts.append(f'<rect x="{LEFT}" y="{top:.1f}" width="{end - LEFT:.1f}" height="{BAR}" rx="3" fill="{fill}"/>')
        parts.append(f'<text x="{end + 8:.1f}" y="{middle:.1f}" fill="{TEXT}"{weight}>{bar.value_us:.3g} µs</text>')
    return "\n".join([*parts, "</svg>", ""])
