"""Picture of one film as SVG: the trace of the spot, and below it the reported rate with its band and the true rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from benchmarks.truth.score import FALSE, verdict
from benchmarks.truth.watch import Record

WIDTH, HEIGHT, LEFT, MIDDLE = 720, 330, 60, 150


def svg(record: Record) -> str:
    """Return the picture of a film's record. Points are reported rates: blue, or red where they are false."""
    looks, trace = record["looks"], record["trace"]
    end = max([1e-9, *(look["t"] for look in looks)])
    rates = [value for look in looks for value in (look["rate"], look["true"]) if value]
    top = 1.6 * max([1e-9, *(look["true"] or 0.0 for look in looks)])
    top = top if top > 1e-6 else 1.2 * max([1e-3, *rates])
    heights = [y for _, y in trace if math.isfinite(y)]
    low, high = (min(heights), max(heights)) if heights else (0.0, 1.0)

    def x(t: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * t / end

    def y_trace(value: float) -> float:
        return MIDDLE - 15 - (MIDDLE - 40) * (value - low) / ((high - low) or 1.0)

    def y_rate(value: float) -> float:
        return HEIGHT - 30 - (HEIGHT - MIDDLE - 45) * min(value, top) / top

    reported = [look for look in looks if look["rate"] is not None]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="16">{record["kind"]}, seed {record["seed"]}: specular intensity (counts)</text>',
        _line(((x(t), y_trace(v)) for t, v in trace if math.isfinite(v)), "#555", 1),
        f'<text x="{LEFT}" y="{MIDDLE + 10}">growth rate (ML/s): true (green), reported with 1 sigma (blue;'
        " false: red)</text>",
        *_stretches(looks, x, y_rate),
    ]
    for look in reported:
        colour = "#c00" if verdict(look, record["slack"]) == FALSE else "#06c"
        sigma = look["sigma"] or 0.0
        at, low_y, high_y = x(look["t"]), y_rate(max(0.0, look["rate"] - sigma)), y_rate(look["rate"] + sigma)
        parts.append(
            f'<path d="M{at:.1f} {low_y:.1f}V{high_y:.1f}" stroke="{colour}" stroke-width="3" opacity="0.35"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{y_rate(look["rate"]):.1f}" r="1.8" fill="{colour}"/>')
    parts += [
        f'<text x="{LEFT - 6}" y="{y_rate(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in (0.0, top / 2, top)
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = share * end
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{at:.0f} s</text>')
    return "\n".join([*parts, "</svg>", ""])


def _stretches(
    looks: list[Record], x: Callable[[float], float], y: Callable[[float], float]
) -> Iterable[str]:
    """Yield the true rate as lines, interrupted where no number is judged."""
    points: list[tuple[float, float]] = []
    for look in [*looks, {"true": None, "t": 0.0}]:
        if look["true"] is None:
            if points:
                yield _line(points, "#080", 2)
            points = []
        else:
            points.append((x(look["t"]), y(look["true"])))


def _line(points: Iterable[tuple[float, float]], colour: str, width: float) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
