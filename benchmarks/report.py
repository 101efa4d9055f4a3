"""Rows and the table they make: who was measured, against what, by how much, and how that spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Who = Literal["ours", "peer", "acquire", "bare"]
COLUMNS: Final[tuple[Who, ...]] = ("ours", "peer", "acquire", "bare")
_HEADS: Final = ("what", "unit", "ours", "peer", "acquire-zarr", "bare limit", "ratio", "goal", "")


@dataclass(frozen=True, slots=True)
class Goal:
    """``limit`` on ours divided by ``against``'s figure of the same run; on ours itself where that is None.

    ``at_least`` turns it round: more is better.
    """

    limit: float
    against: Who | None = None
    at_least: bool = False

    def met_by(self, values: Sequence[float]) -> bool | None:
        """Whether their median is on the right side of the limit; None where there are none."""
        if not values:
            return None
        middle = statistics.median(values)
        return middle >= self.limit if self.at_least else middle <= self.limit

    def __str__(self) -> str:
        name = {"bare": "x bare", "peer": "x peer", "acquire": "x acquire", None: ""}[self.against or None]
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{name}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``figures`` holds one value for each repeated run of each program, in the same order."""

    what: str
    unit: str
    figures: Mapping[Who, Sequence[float]]
    goals: Sequence[Goal] = ()
    note: str = ""

    def ratios(self, goal: Goal) -> list[float]:
        """Ours by the goal's, run by run; ours itself where the goal is absolute. Empty if one is missing."""
        ours = self.figures.get("ours", ())
        if goal.against is None:
            return list(ours)
        return [a / b for a, b in zip(ours, self.figures.get(goal.against, ()), strict=False) if b]

    def reached(self, goal: Goal) -> bool | None:
        """Whether the median reaches the goal; None where there is nothing to tell it by."""
        return goal.met_by(self.ratios(goal))

    def beyond_the_machine(self, goal: Goal) -> bool:
        """Whether the bare limit, measured beside ours, misses an absolute goal itself."""
        return goal.against is None and goal.met_by(self.figures.get("bare", ())) is False


@dataclass(slots=True)
class Report:
    """A table in the making, and what stands above it."""

    machine: Sequence[str]
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        notes = [f"- {row.what}: {row.note}" for row in self.rows if row.note]
        parts = ["\n".join(self.machine), table(self.rows), *(["\n".join(notes)] if notes else [])]
        return "\n\n".join(parts)


def spread(values: Sequence[float]) -> str:
    """The median, and in brackets the lowest and the highest of the runs."""
    if not values:
        return "-"
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low} .. {high})"


def number(value: float) -> str:
    """Three significant digits, large ones in full."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    cells = [_HEADS, *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[k]) for line in cells) for k in range(len(_HEADS))]
    drawn = [
        " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells
    ]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (drawn[0], rule, *drawn[1:]))


def _lines(row: Row) -> list[tuple[str, ...]]:
    head = (row.what, row.unit, *(spread(row.figures.get(who, ())) for who in COLUMNS))
    if not row.goals:
        return [(*head, "", "", "")]
    lines = []
    for k, goal in enumerate(row.goals):
        ratio = spread(row.ratios(goal)) if goal.against else ""
        verdict = {True: "yes", False: "NO", None: "?"}[row.reached(goal)]
        if verdict == "NO" and row.beyond_the_machine(goal):
            verdict = "NO (nor bare)"
        lines.append(((*head,) if k == 0 else ("", "", "", "", "", "")) + (ratio, str(goal), verdict))
    return lines
