"""The README's chart: bars on a linear axis that begins at zero. Plain SVG."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 720, 230, 90
ROW, BAR = 34, 20
TOP, BOTTOM = 74, 40
OURS, OTHERS, HELPER, TEXT, GRID = "#0f766e", "#94a3b8", "#99d5cf", "#334155", "#cbd5e1"
TITLE = "Processor time to record one event of 1 KB"
LEGEND = "blocks with the same name and values; all threads; the lighter part is our collector's, another process"
# Grid lines at the most.
LINES = 5


class Bar(NamedTuple):
    """One way to record an event: what it costs the traced process, and what another one that does the rest."""

    name: str
    here_us: float
    helper_us: float
    ours: bool

    @property
    def whole_us(self) -> float:
        """What it costs all processes."""
        return self.here_us + self.helper_us


def chart(bars: Sequence[Bar]) -> str:
    """Return the chart as SVG: processor time per event, shortest first."""
    bars = sorted(bars, key=lambda bar: bar.whole_us)
    step = _step(bars[-1].whole_us)
    scale = (WIDTH - LEFT - RIGHT) / bars[-1].whole_us
    height, foot = TOP + ROW * len(bars) + BOTTOM, TOP + ROW * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14" role="img" aria-label="{TITLE}">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="30" fill="{TEXT}" font-weight="600">{TITLE}</text>',
        f'<text x="16" y="50" fill="{TEXT}" font-size="12">{LEGEND}</text>',
    ]
    for line in range(int(bars[-1].whole_us / step) + 1):
        at = LEFT + line * step * scale
        parts.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 22}" fill="{TEXT}" text-anchor="middle">{line * step:g} µs</text>')
    for number, bar in enumerate(bars):
        parts += _row(bar, TOP + ROW * number + (ROW - BAR) / 2, scale)
    return "\n".join([*parts, "</svg>", ""])


def _row(bar: Bar, top: float, scale: float) -> Iterator[str]:
    middle, weight = top + BAR / 2 + 5, ' font-weight="600"' if bar.ours else ""
    here, whole = bar.here_us * scale, bar.whole_us * scale
    yield f'<text x="{LEFT - 10}" y="{middle:.1f}" fill="{TEXT}" text-anchor="end"{weight}>{escape(bar.name)}</text>'
    for start, end, fill in ((0.0, here, OURS if bar.ours else OTHERS), (here, whole, HELPER)):
        yield f'<rect x="{LEFT + start:.1f}" y="{top:.1f}" width="{end - start:.1f}" height="{BAR}" fill="{fill}"/>'
    said = f"{float(f'{bar.whole_us:.3g}'):g} µs"
    yield f'<text x="{LEFT + whole + 8:.1f}" y="{middle:.1f}" fill="{TEXT}"{weight}>{said}</text>'


def _step(most: float) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that gives a few lines."""
    power = 10.0 ** math.floor(math.log10(most / LINES))
    return next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= LINES)
