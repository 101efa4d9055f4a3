"""A report of two pages (PDF): what was grown and when, rates and thickness, charts, pictures, events, versions.

All lines are black or grey, so it is right in black and white.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atomstream.durations import clock_text
from atomstream.plain_text import plain_text
from atomstream.plot_fonts import FONT, glyph_note, installed_fonts, plain
from atomstream.results import F64, Event, rounded
from atomstream.server.export.growth import Growth
from atomstream.server.export.table import RATE
from atomstream.server.live.messages import MeasurementRecord, SegmentRecord
from atomstream.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

A4_INCHES: Final = (8.27, 11.69)
POINTS: Final = 1500
"""Points of a curve; each has the smallest and the largest value of its stretch."""

COLUMN: Final = 0.41
"""Width of a column of facts on the first page, as a part of the page's width."""

SMALLEST_PT: Final = 5.0
"""Smallest size of the letters of a fact, in points."""

MOST_REASONS: Final = 4
"""Most reasons why values are undetermined on the first page; more would reach the charts."""

MOST_ROWS: Final = 22
"""Most rows of a table; the rest is counted in its last line."""

MOST_SEGMENTS: Final = 8
"""Most rows of the table of segments, which is above that of the events."""

MOST_LABELS: Final = 40
"""Most marks that have their text in a chart."""

MOST_SPANS: Final = 400
"""Most segments that are shaded in a chart."""

SEGMENT_COLUMNS: Final = {
    "no.": 0.08,
    "from": 0.12,
    "to": 0.19,
    "begun by": 0.26,
    "growth rate": 0.48,
    "oscillations": 0.70,
}
EVENT_COLUMNS: Final = {"at": 0.08, "by": 0.15, "kind": 0.23, "what": 0.38}

_STYLE_LOCK: Final = threading.Lock()
"""matplotlib's style is global, and exports run in several threads."""

NAMES: Final = {
    "growth_rate_ml_s": "Growth rate",
    "growth_rate_nm_s": "Growth rate",
    "oscillation_period": "Period",
    "oscillations_counted": "Oscillations",
    "layers_grown": "Layers",
    "thickness_nm": "Thickness",
    "damping_layers": "Damping",
    "lattice_spacing": "Streak spacing",
    "lattice_parameter": "Lattice parameter",
    "specular_fwhm_1": "Specular width",
    "rotation_rpm": "Rotation",
}
"""Values of the first page, where the stream has them."""


def write_report(growth: Growth, path: Path) -> None:
    """Write the report to ``path``."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    curves = _Curves.of(growth)
    about = {"Title": plain_text(growth.metadata.name), "Creator": f"atomstream {__version__}"}
    content = io.BytesIO()  # in memory: after a failed write matplotlib would leave a file open
    with styled(), PdfPages(content, metadata=about) as pdf:
        for draw in (_first_page, _second_page):
            figure = Figure(figsize=A4_INCHES)
            draw(figure, growth, curves)
            pdf.savefig(figure)
    path.write_bytes(content.getbuffer())


@contextmanager
def styled() -> Iterator[None]:
    """Context manager: the style of reports and snapshots. One thread at a time draws in it."""
    import matplotlib as mpl

    style: Any = {
        "font.family": [FONT, *installed_fonts()],
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "pdf.fonttype": 42,
    }
    with _STYLE_LOCK, mpl.rc_context(style):
        yield


@dataclass(frozen=True, slots=True, eq=False)
class _Curves:
    """Smallest and largest value of each stretch of frames, (k,) each."""

    time_s: F64
    low: dict[str, F64]
    high: dict[str, F64]

    @classmethod
    def of(cls, growth: Growth) -> _Curves:
        wanted = [
            name for name in ("specular_intensity", RATE, "growth_rate_sigma") if name in growth.columns()
        ]
        whole = replace(growth, step=1)
        per_point = max(1, -(-whole.n_exported // POINTS))
        times, low, high = list[F64](), dict[str, list[F64]](), dict[str, list[F64]]()
        with closing(whole.pieces(pixels=False)) as pieces:
            for piece in pieces:
                edges = np.arange(0, len(piece.numbers), per_point)
                times.append(piece.time_s[edges])
                for name in wanted:
                    low.setdefault(name, []).append(np.fmin.reduceat(piece.columns[name], edges))
                    high.setdefault(name, []).append(np.fmax.reduceat(piece.columns[name], edges))
        return cls(
            np.concatenate([*times, np.empty(0)]),
            {name: np.concatenate(parts) for name, parts in low.items()},
            {name: np.concatenate(parts) for name, parts in high.items()},
        )


def _first_page(figure: Figure, growth: Growth, curves: _Curves) -> None:
    metadata, status = growth.metadata, growth.status
    figure.text(0.08, 0.95, plain(metadata.name), fontsize=18, weight="bold", va="top")
    seconds = curves.time_s[np.isfinite(curves.time_s)]
    duration = float(seconds[-1]) if len(seconds) else 0.0
    begin = growth.origin
    facts = [
        ("Sample", metadata.sample.name if metadata.sample else "not stated"),
        ("Project", metadata.project.name if metadata.project else "none"),
        ("Begin", begin.strftime("%Y-%m-%d %H:%M:%S UTC") if begin else "no frames"),
        ("Length", f"{clock_text(duration)} ({'h:m:s' if duration >= 3599.95 else 'm:s'})"),
        ("Frames", f"{growth.archive.frames_stored():,} at {metadata.fps:g} frames/s"),
        ("Stream", metadata.data_id),
        ("Rotation", f"{metadata.rotations_per_min:g} rpm" if metadata.rotations_per_min else "stationary"),
    ]
    _lines(figure, 0.08, 0.90, facts)
    values = [(NAMES[name], _measurement(one)) for name, one in status.values.items() if name in NAMES]
    whys = {
        NAMES[name]: one.why for name, one in status.values.items() if name in NAMES and one.value is None
    }
    _lines(figure, 0.50, 0.90, values or [("Results", "none")], whys)
    shared = figure.add_axes((0.10, 0.42, 0.84, 0.22))
    _curve(shared, curves, "specular_intensity", "Specular intensity (counts)")
    _mark_events(shared, status.events, status.segments, seconds)
    rate = figure.add_axes((0.10, 0.12, 0.84, 0.22), sharex=shared)
    _curve(rate, curves, RATE, "Growth rate (layers/s)")
    if RATE in curves.low and "growth_rate_sigma" in curves.high:
        band = curves.high["growth_rate_sigma"]
        rate.fill_between(curves.time_s, curves.low[RATE] - band, curves.high[RATE] + band, color="0.8", lw=0)
    _mark_events(rate, status.events, status.segments, seconds)
    rate.set_xlabel("Time from the first frame (s)")
    _foot(figure, 1)


def _second_page(figure: Figure, growth: Growth, curves: _Curves) -> None:
    for left, rank, title in ((0.08, 0, "First frame"), (0.53, -1, "Last frame")):
        axes = figure.add_axes((left, 0.70, 0.39, 0.22))
        frame = growth.frame_at(rank)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_axis_off()
        if frame is not None:
            axes.imshow(frame, cmap="gray", vmin=0, vmax=max(float(np.percentile(frame, 99.8)), 1.0))
    segments = [
        [
            str(one.number),
            _clock(one.start_s),
            _clock(one.end_s),
            plain(one.label, 26),
            plain(_measurement(one.rate)) if one.rate.value is not None else "undetermined",
            plain(_measurement(one.counted)) if one.counted.value is not None else "undetermined",
        ]
        for one in growth.status.segments[:MOST_SEGMENTS]
    ]
    _table(figure, 0.66, "Segments", SEGMENT_COLUMNS, segments, len(growth.status.segments))
    events = [
        [_clock(one.time_s), plain(one.by), plain(one.kind, 18), plain(_with_value(one), 70)]
        for one in growth.status.events[:MOST_ROWS]
    ]
    _table(figure, 0.40, "Events", EVENT_COLUMNS, events, len(growth.status.events))
    _foot(figure, 2)


def _with_value(event: Event) -> str:
    """The label of an event, with the value that a user has set."""
    if event.by != "user" or event.value is None or event.kind == "rotation":
        return event.label
    return f"{event.label}: {event.value:g} {event.unit}".strip()


def _curve(axes: Axes, curves: _Curves, name: str, label: str) -> None:
    axes.set_ylabel(label)
    if name not in curves.low or not np.isfinite(curves.low[name]).any():
        axes.text(0.5, 0.5, "undetermined", transform=axes.transAxes, ha="center", color="0.4")
        return
    axes.fill_between(curves.time_s, curves.low[name], curves.high[name], color="0.55", lw=0)
    axes.plot(curves.time_s, (curves.low[name] + curves.high[name]) / 2, color="black", lw=0.8)


def _mark_events(axes: Axes, events: list[Event], segments: list[SegmentRecord], seconds: F64) -> None:
    """Draw the user's marks and every second segment that lie within the chart's times ``seconds``.

    A stream may have 20 000 of them: more than fit beside each other are drawn as lines without their text.
    """
    from matplotlib.collections import LineCollection, PolyCollection

    if not len(seconds):
        return
    first, last = float(seconds[0]), max(float(seconds[-1]), float(seconds[0]) + 1e-3)
    axes.set_xlim(first - 0.02 * (last - first), last + 0.02 * (last - first))
    across = axes.get_xaxis_transform()
    spans = [
        (one.start_s, one.end_s)
        for number, one in enumerate(segments)
        if number % 2 and one.start_s is not None and one.end_s is not None
    ]
    boxes = [((begin, 0.0), (end, 0.0), (end, 1.0), (begin, 1.0)) for begin, end in spans[:MOST_SPANS]]
    # With autolim these would change the range of the values.
    shades = PolyCollection(boxes, transform=across, color="0.94", lw=0, zorder=0)
    axes.add_collection(shades, autolim=False)
    marks = [
        (one.time_s, one.label)
        for one in events
        if one.by == "user" and one.time_s is not None and first <= one.time_s <= last
    ]
    places = np.unique(np.round([(time_s - first) / (last - first) * POINTS for time_s, _ in marks]))
    lines = first + places / POINTS * (last - first) if len(marks) > MOST_LABELS else [t for t, _ in marks]
    dashes = LineCollection(
        [((x, 0.0), (x, 1.0)) for x in lines], transform=across, color="0.3", lw=0.8, ls="--"
    )
    axes.add_collection(dashes, autolim=False)
    for time_s, label in marks if len(marks) <= MOST_LABELS else ():
        axes.text(time_s, 1.01, plain(label, 18), transform=across, fontsize=7)


def _lines(
    figure: Figure,
    left: float,
    top: float,
    rows: list[tuple[str, str]],
    whys: Mapping[str, str] | None = None,
) -> None:
    """Names and values. Below a value of ``whys`` is the reason why it is undetermined, each reason once."""
    y, shown = top, {""}
    for name, value in rows[:12]:
        figure.text(left, y, name, color="0.35", va="top")
        _fit(figure, figure.text(left + 0.15, y, plain(value, 46), va="top"), left + COLUMN)
        y -= 0.020
        why = (whys or {}).get(name, "")
        if why not in shown and len(shown) <= MOST_REASONS:
            shown.add(why)
            reason = figure.text(left + 0.15, y + 0.006, plain(why, 64), va="top", fontsize=6.5, color="0.35")
            _fit(figure, reason, left + COLUMN + 0.02)
            y -= 0.009


def _fit(figure: Figure, text: Text, right: float) -> None:
    """Make a text smaller if it would end right of ``right`` (0 to 1), where the next column begins."""
    room = (right - text.get_position()[0]) * figure.bbox.width
    size = float(text.get_fontsize())
    while size > SMALLEST_PT and text.get_window_extent().width > room:
        size -= 0.25
        text.set_fontsize(size)


def _table(
    figure: Figure, top: float, title: str, columns: dict[str, float], rows: list[list[str]], total: int
) -> None:
    """A table of the first ``rows`` of ``total``; ``columns`` are the titles and the left edges (0 to 1)."""
    figure.text(0.08, top, title, fontsize=11, weight="bold", va="top")
    if not rows:
        figure.text(0.08, top - 0.022, "none", color="0.35", va="top")
        return
    for k, row in enumerate([list(columns), *rows]):
        for x, cell in zip(columns.values(), row, strict=True):
            color = "0.35" if k == 0 else "0"
            figure.text(x, top - 0.024 - 0.0145 * k, cell, fontsize=7.5, color=color, va="top")
    if total > len(rows):
        y = top - 0.024 - 0.0145 * (len(rows) + 1)
        figure.text(0.08, y, f"and {total - len(rows)} more", fontsize=7.5, color="0.35", va="top")


def _foot(figure: Figure, number: int) -> None:
    from matplotlib.text import Text

    note = glyph_note(text.get_text() for text in figure.findobj(Text))
    if note:
        note = note.replace("this computer", "the server")
        note += ", such as Noto Sans CJK for Chinese; the title of this file has the whole name"
        figure.text(0.08, 0.05, note, fontsize=7, color="0.4")
    figure.text(0.08, 0.035, f"atomstream {__version__}", fontsize=7, color="0.4")
    figure.text(0.92, 0.035, f"page {number} of 2", fontsize=7, color="0.4", ha="right")


def _measurement(one: MeasurementRecord) -> str:
    """A value with its uncertainty, both rounded to two digits of the uncertainty; or that there is none."""
    if one.value is None:
        return "undetermined"
    unit = {"1": "", "1/min": " rpm"}.get(one.unit, f" {one.unit}")
    return f"{rounded(one.value, one.sigma)}{unit}"


def _clock(time_s: float | None) -> str:
    """Minutes and seconds; empty if it is not known. A mark may lie before the first frame."""
    return "" if time_s is None else clock_text(time_s)
