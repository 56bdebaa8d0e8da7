"""The charts: the README's bars on a linear axis that begins at zero, and lines that show how cost grows. Plain SVG."""

import math
import statistics
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
# Of the charts of growth, on axes where each step is ten times the one before.
WIDE, HIGH, SIDE, ABOVE, BELOW, EDGE = 720, 420, 112, 94, 62, 48
# Where the text of a chart begins, and how far apart its lines are.
INSET, LEADING = 16, 18
COLOURS = (OURS, "#b45309", "#64748b")
# What grows with a power is as straight on such axes as a line. Small numbers have costs of their own beside it.
DECADES = 2


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
        f'<text x="{INSET}" y="30" fill="{TEXT}" font-weight="600">{TITLE}</text>',
        f'<text x="{INSET}" y="50" fill="{TEXT}" font-size="12">{LEGEND}</text>',
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


class Line(NamedTuple):
    """What a line of a chart shows: its points, each with how much there is and what that costs."""

    name: str
    points: list[tuple[float, float]]

    @property
    def exponent(self) -> float:
        """The power with which cost grows in the upper decades: 0 is not at all, 1 is in proportion."""
        return exponent([point for point in self.points if point[0] >= self.points[-1][0] / 10**DECADES])


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the logarithms by least squares."""
    across, up = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    return statistics.linear_regression(across, up).slope


def growth(title: str, across: str, unit: str, lines: Sequence[Line]) -> str:
    """Return a chart of lines as SVG, both axes logarithmic. `across`: what there is more and more of."""
    points = [point for line in lines for point in line.points]
    (left, right), (low, high) = (_decades([point[axis] for point in points]) for axis in (0, 1))
    foot, end = HIGH - BELOW, WIDE - EDGE

    def x(value: float) -> float:
        return SIDE + (math.log10(value) - left) / (right - left) * (end - SIDE)

    def y(value: float) -> float:
        return foot - (math.log10(value) - low) / (high - low) * (foot - ABOVE)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" '
        f'font-family="system-ui, sans-serif" font-size="14" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDE}" height="{HIGH}" rx="6" fill="#ffffff"/>',
        f'<text x="{INSET}" y="30" fill="{TEXT}" font-weight="600">{escape(title)}</text>',
    ]
    for power in range(left, right + 1):
        at, told = x(10.0**power), _round(power)
        parts.append(f'<line x1="{at:.1f}" y1="{ABOVE}" x2="{at:.1f}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 20}" fill="{TEXT}" text-anchor="middle">{told}</text>')
    for power in range(low, high + 1):
        at, told = y(10.0**power), _round(power)
        parts.append(f'<line x1="{SIDE}" y1="{at:.1f}" x2="{end}" y2="{at:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{SIDE - 8}" y="{at + 5:.1f}" fill="{TEXT}" text-anchor="end">{told}</text>')
    below = f"{across}; both axes are logarithmic"
    parts.append(
        f'<text x="{(SIDE + end) / 2}" y="{HIGH - 16}" fill="{TEXT}" text-anchor="middle">{escape(below)}</text>'
    )
    for number, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        name, at = f"{line.name}, {unit}: exponent {line.exponent:.2f}", 52 + number * LEADING
        parts.append(
            f'<text x="{INSET}" y="{at}" fill="{colour}" font-size="12" font-weight="600">{escape(name)}</text>'
        )
        places = [(x(many), y(cost)) for many, cost in line.points]
        corners = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += (f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3.5" fill="{colour}"/>' for across, up in places)
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which all values lie."""
    least, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return least, max(most, least + 1)


def _round(power: int) -> str:
    """Return a power of ten as people write it."""
    return f"{10**power:,}".replace(",", " ") if power >= 0 else f"{10.0**power:g}"
