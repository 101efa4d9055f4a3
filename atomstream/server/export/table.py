"""CSV of the results: one header line with units, one row per frame, read by pandas without options."""

from __future__ import annotations

import csv
from bisect import bisect_right
from pathlib import Path
from typing import Any, TextIO

from atomstream.results import Event
from atomstream.server.export.growth import Growth, Piece, plain_text, utc_text

RATE = "growth_rate_ml_s"
FORMULA_SIGNS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""First characters of what a spreadsheet computes; some also take those of full width."""


def write_csv(growth: Growth, path: Path) -> None:
    """Write ``path``. Columns: frame, time in s and UTC, each result, rate in nm/s if calibrated, segment, marks.

    A mark stands in the row of the first frame at or after it. Cells without a value are empty.
    """
    names = growth.columns()
    header = ["frame", "time_s", "time_utc", *(f"{name} [{unit}]" for name, unit in names.items())]
    if growth.layer_nm is not None and RATE in names:
        header.append("growth_rate [nm/s]")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "segment", "marks"])
        _Rows(growth, file).write(writer)


class _Rows:
    def __init__(self, growth: Growth, file: TextIO) -> None:
        self._growth = growth
        self._file = file
        status = growth.status
        self._origin_ms = status.origin_unix_ms
        self._segments = [one for one in status.segments if one.start_s is not None]
        self._starts = [one.start_s or 0.0 for one in self._segments]
        self._marks = [one for one in status.events if one.by == "user" and one.time_s is not None]

    def write(self, writer: Any) -> None:
        for piece in self._growth.pieces(pixels=False):
            writer.writerows(self._row(piece, k) for k in range(len(piece.numbers)))

    def _row(self, piece: Piece, k: int) -> list[str]:
        time_s = float(piece.time_s[k])
        known = time_s == time_s
        unix_ms = self._origin_ms + 1e3 * time_s if known and self._origin_ms is not None else None
        row = [str(piece.numbers[k]), number_text(time_s), utc_text(unix_ms)]
        row += [number_text(float(values[k])) for values in piece.columns.values()]
        layer_nm = self._growth.layer_nm
        if layer_nm is not None and RATE in piece.columns:
            row.append(number_text(float(piece.columns[RATE][k]) * layer_nm))
        return [*row, self._segment(time_s) if known else "", self._due_marks(time_s) if known else ""]

    def _segment(self, time_s: float) -> str:
        at = bisect_right(self._starts, time_s) - 1
        if at < 0:
            return ""
        segment = self._segments[at]
        return str(segment.number) if segment.end_s is None or time_s <= segment.end_s else ""

    def _due_marks(self, time_s: float) -> str:
        due = []
        while self._marks and (self._marks[0].time_s or 0.0) <= time_s:
            due.append(safe_text(_with_value(self._marks.pop(0))))
        return "; ".join(due)


def _with_value(mark: Event) -> str:
    if mark.value is None or mark.kind == "rotation":
        return mark.label
    return f"{mark.label} = {mark.value:g} {mark.unit}".rstrip()


def number_text(value: float) -> str:
    """A number with nine digits; empty for NaN."""
    return "" if value != value else f"{value:.9g}"


def safe_text(text: str) -> str:
    """A user's text for a cell. One that a spreadsheet would compute gets an apostrophe in front."""
    line = " ".join(plain_text(text).split())
    return f"'{line}" if line[:1] in FORMULA_SIGNS else line
