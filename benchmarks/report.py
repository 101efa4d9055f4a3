"""Rows of results and their table: figures of each program, goal, and spread over the runs."""

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
    """A limit for our figure divided by that of ``against`` in the same run, or for our figure if that is None.

    With ``at_least`` larger figures are better.
    """

    limit: float
    against: Who | None = None
    at_least: bool = False

    def met_by(self, values: Sequence[float]) -> bool | None:
        """Return True if the median of the figures meets the limit; None without figures."""
        if not values:
            return None
        middle = statistics.median(values)
        return middle >= self.limit if self.at_least else middle <= self.limit

    def __str__(self) -> str:
        name = {"bare": "x bare", "peer": "x peer", "acquire": "x acquire", None: ""}[self.against or None]
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{name}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``figures`` has one value per run of each program, in the same order."""

    what: str
    unit: str
    figures: Mapping[Who, Sequence[float]]
    goals: Sequence[Goal] = ()
    note: str = ""

    def ratios(self, goal: Goal) -> list[float]:
        """Return our figures divided by the goal's program, run by run, or our figures for an absolute goal."""
        ours = self.figures.get("ours", ())
        if goal.against is None:
            return list(ours)
        return [a / b for a, b in zip(ours, self.figures.get(goal.against, ()), strict=False) if b]

    def reached(self, goal: Goal) -> bool | None:
        """Return True if the median reaches the goal; None without goal or figures."""
        return goal.met_by(self.ratios(goal))

    def beyond_the_machine(self, goal: Goal) -> bool:
        """Return True if no program can reach this absolute goal on this machine: the bare system calls miss it too."""
        return goal.against is None and goal.met_by(self.figures.get("bare", ())) is False


@dataclass(slots=True)
class Report:
    """A list of rows with the text above their table."""

    machine: Sequence[str]
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        notes = [f"- {row.what}: {row.note}" for row in self.rows if row.note]
        parts = ["\n".join(self.machine), table(self.rows), *(["\n".join(notes)] if notes else [])]
        return "\n\n".join(parts)


def spread(values: Sequence[float]) -> str:
    """Format the median, with the lowest and highest value in brackets."""
    if not values:
        return "-"
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low} .. {high})"


def number(value: float) -> str:
    """Format with three significant digits, large numbers completely."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table with aligned columns."""
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
