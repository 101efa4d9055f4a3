"""Draws ``docs/images/push_latency.svg``: duration of ``push`` over time, for this client and the peer.

``python -m benchmarks.charts`` measures as ``push_latency`` does, with one run each, and writes the SVG without a
library: it has only polylines on a logarithmic axis.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Final

from benchmarks.machine import cpu_model
from benchmarks.processes import ROOT
from benchmarks.runner import Plan, planned
from benchmarks.runs import paced

TARGET: Final = ROOT / "docs" / "images" / "push_latency.svg"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 360, 70, 56, 150, 48
INK, GRID, PAPER = "#24292f", "#d0d7de", "#ffffff"


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of (s, ms) points."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axes:
    """Maps seconds and milliseconds to SVG coordinates; milliseconds on a logarithmic axis."""

    seconds: float
    low: int
    high: int

    def x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds

    def y(self, ms: float) -> float:
        share = (math.log10(ms) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def main() -> None:
    with planned() as plan:
        size = plan.sizes()[0]
        svg = draw(_title(plan, size), lines_of(replace(plan, repeats=1), size))
    if plan.quick:
        print(f"{len(svg)} characters drawn; {TARGET} is unchanged")
        return
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(svg, encoding="utf-8", newline="\n")
    print(TARGET)


def lines_of(plan: Plan, size: tuple[int, int]) -> list[Line]:
    """Measure both clients and the plain copy."""
    answers = paced(plan, size)
    period = plan.chunk / plan.fps
    ours = answers["ours"][0]
    copy = [1e3 * statistics.median(ours["copy_s"])] * len(ours["copy_s"])
    found = [
        ("one memory copy", "#8c959f", copy),
        ("atomstream", "#0969da", [1e3 * s for s in ours["push_s"]]),
    ]
    if "peer" in answers:
        found.insert(0, ("atomscale 0.21", "#cf222e", [1e3 * s for s in answers["peer"][0]["push_s"]]))
    return [
        Line(name, colour, [(k * period, ms) for k, ms in enumerate(times)]) for name, colour, times in found
    ]


def _title(plan: Plan, size: tuple[int, int]) -> tuple[str, str]:
    where = f"{cpu_model()}, a chunk each {plan.chunk / plan.fps:g} s as from a camera at {plan.fps:g} fps"
    return f"How long push() of {plan.chunk} frames of {size[0]}x{size[1]} holds the caller", where


def draw(title: tuple[str, str], lines: Sequence[Line]) -> str:
    """Return the complete SVG."""
    values = [ms for line in lines for _, ms in line.points]
    axes = Axes(
        max(seconds for line in lines for seconds, _ in line.points) or 1.0,
        math.floor(math.log10(min(values))),
        math.ceil(math.log10(max(values))),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        _text(LEFT, 22, title[0], size=15),
        _text(LEFT, 40, title[1], colour="#57606a"),
        *_grid(axes),
        *(_polyline(axes, line) for line in lines),
        *_labels(axes, lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(axes: Axes) -> list[str]:
    parts = []
    for decade in range(axes.low, axes.high + 1):
        y = axes.y(10.0**decade)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10.0**decade:g} ms", anchor="end"))
    for k in range(5):
        seconds = axes.seconds * k / 4
        parts.append(_text(axes.x(seconds), HEIGHT - BOTTOM + 20, f"{seconds:.0f} s", anchor="middle"))
    return parts


def _polyline(axes: Axes, line: Line) -> str:
    points = " ".join(f"{axes.x(seconds):.1f},{axes.y(ms):.1f}" for seconds, ms in line.points)
    return f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"/>'


def _labels(axes: Axes, lines: Sequence[Line]) -> list[str]:
    """Place a label next to each curve, from top to bottom, without overlap."""
    parts, free = [], float(TOP)
    medians = {line.name: statistics.median(ms for _, ms in line.points) for line in lines}
    for line in sorted(lines, key=lambda line: -medians[line.name]):
        y = max(free, axes.y(medians[line.name]) + 4)
        parts.append(_text(WIDTH - RIGHT + 8, y, line.name, colour=line.colour))
        parts.append(
            _text(WIDTH - RIGHT + 8, y + 14, f"median {medians[line.name]:.3g} ms", colour=line.colour)
        )
        free = y + 34
    return parts


def _text(x: float, y: float, text: str, *, size: int = 12, colour: str = INK, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


if __name__ == "__main__":
    main()
