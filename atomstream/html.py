"""Results as HTML tables, for ``_repr_html_`` in Jupyter. All texts are escaped; colours are those of the notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from atomstream.durations import clock_text

if TYPE_CHECKING:
    from atomstream.results import Event, Measurement

MOST_ROWS: Final = 12
"""Events and segments that are shown; the number of the others is stated."""


def table(title: str, rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table with a caption. Every cell is escaped; texts are on the left."""
    cells = [
        "<tr>" + "".join(f'<td style="text-align:left">{_cell(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    ]
    heading = "".join(f'<th style="text-align:left">{_cell(one)}</th>' for one in head)
    return (
        f'<table><caption style="text-align:left;font-weight:bold">{_cell(title)}</caption>'
        f"{f'<thead><tr>{heading}</tr></thead>' if head else ''}<tbody>{''.join(cells)}</tbody></table>"
    )


def _cell(value: object) -> str:
    from html import escape  # its table of entities takes 2 ms of the import of a streamer

    return escape("".join(c if c.isprintable() else " " for c in str(value)))


def measurements(title: str, values: Mapping[str, Measurement], names: Iterable[str]) -> str:
    """The named values with their uncertainty, or the reason why there is none."""
    return table(title, [(name.replace("_", " "), values[name]) for name in names if name in values])


def events(found: Sequence[Event]) -> str:
    """Events by time; empty if there are none."""
    if not found:
        return ""
    rows = [(clock(one.at_s), one.kind, one.label, one.by) for one in found[:MOST_ROWS]]
    return table("Events", rows, ("time", "kind", "text", "by")) + more(len(found))


def more(count: int) -> str:
    """How many rows are not shown; empty if all are."""
    return f"<div>and {count - MOST_ROWS} more</div>" if count > MOST_ROWS else ""


def clock(time_s: float) -> str:
    """A time in the stream as minutes and seconds; a dash if it is not known."""
    return clock_text(time_s, 2) if math.isfinite(time_s) else "-"


class Report(dict[str, Any]):
    """The report of ``finalize``: a dictionary that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        lost = self.get("lost") or []
        title = "Every frame is stored" if self.get("drained") and not lost else "Not everything is stored"
        rows = [(name.replace("_", " "), value) for name, value in self.items() if name != "lost"]
        losses = [(index, reason) for index, reason in lost[:MOST_ROWS]]
        shown = table("Lost", losses, ("chunk", "reason")) + more(len(lost)) if lost else ""
        return table(title, rows) + shown
