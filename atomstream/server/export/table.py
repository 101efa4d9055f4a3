"""CSV of the results: one header line with units, one row per frame, read by pandas without options."""

from __future__ import annotations

import csv
import math
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from atomstream.plain_text import plain_text
from atomstream.results import F64, Event
from atomstream.server.export.growth import Growth, Piece

RATE = "growth_rate_ml_s"
FIRST_MS, LAST_MS = -62_135_596_800_000.0, 253_402_300_800_000.0
"""The years 1 to 9999, in ms since 1970."""

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
        rows = _Rows(growth)
        with closing(growth.pieces(pixels=False)) as pieces:
            for piece in pieces:
                writer.writerows(rows.of(piece))


class _Rows:
    def __init__(self, growth: Growth) -> None:
        self._growth = growth
        status = growth.status
        self._origin_ms = status.origin_unix_ms
        self._segments = [one for one in status.segments if one.start_s is not None]
        self._starts = np.array([one.start_s or 0.0 for one in self._segments])
        self._ends = np.array([math.inf if one.end_s is None else one.end_s for one in self._segments])
        self._numbers = np.array([str(one.number) for one in self._segments])
        self._marks = deque(one for one in status.events if one.by == "user" and one.time_s is not None)

    def of(self, piece: Piece) -> Iterator[tuple[str, ...]]:
        """The cells of each row of a piece. The pieces must be given in order."""
        origin_ms = math.nan if self._origin_ms is None else self._origin_ms
        cells = [
            list(map(str, piece.numbers.tolist())),
            _texts(piece.time_s),
            _utc_texts(origin_ms + 1e3 * piece.time_s),
            *(_texts(values) for values in piece.columns.values()),
        ]
        layer_nm = self._growth.layer_nm
        if layer_nm is not None and RATE in piece.columns:
            cells.append(_texts(piece.columns[RATE] * layer_nm))
        return zip(*cells, self._segment_cells(piece.time_s), self._mark_cells(piece.time_s), strict=True)

    def _segment_cells(self, time_s: F64) -> list[str]:
        if not self._segments:
            return [""] * len(time_s)
        at = np.searchsorted(self._starts, time_s, side="right") - 1
        inside = (at >= 0) & (time_s <= self._ends[at])
        cells: list[str] = np.where(inside, self._numbers[at], "").tolist()
        return cells

    def _mark_cells(self, time_s: F64) -> list[str]:
        cells = [""] * len(time_s)
        known = np.flatnonzero(np.isfinite(time_s))
        latest = np.maximum.accumulate(time_s[known])
        while self._marks:
            due = int(np.searchsorted(latest, self._marks[0].time_s or 0.0))  # the first frame at or after it
            if due == len(known):
                break
            text, k = safe_text(_with_value(self._marks.popleft())), int(known[due])
            cells[k] = f"{cells[k]}; {text}" if cells[k] else text
        return cells


def _texts(values: F64) -> list[str]:
    """The texts of numbers. Most results stay the same for many frames, so equal neighbours are formatted once."""
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    starts = np.flatnonzero(np.concatenate([[True], ~same])[: len(values)])
    texts = np.array([number_text(value + 0.0) for value in values[starts].tolist()], dtype=object)
    repeated: list[str] = np.repeat(texts, np.diff(np.append(starts, len(values)))).tolist()
    return repeated


def _utc_texts(unix_ms: F64) -> list[str]:
    """As :func:`utc_text`, of many times; empty for NaN and for times that are in no calendar."""
    known = (unix_ms >= FIRST_MS) & (unix_ms < LAST_MS)
    microseconds = np.rint(np.where(known, unix_ms, 0.0) * 1e3).astype("datetime64[us]")
    texts = np.datetime_as_string(microseconds.astype("datetime64[ms]"), unit="ms").tolist()
    return [f"{text}Z" if one else "" for text, one in zip(texts, known.tolist(), strict=True)]


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
