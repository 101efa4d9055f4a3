"""Charts of results with matplotlib: intensity and growth rate over time, with marks and segments."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.long_names import long_name_of
from atomstream.optional import load
from atomstream.plot_fonts import FONT, glyph_note, installed_fonts, plain
from atomstream.results import F64, Event, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT: Final = ("specular_intensity", "growth_rate_ml_s")
SIGMAS: Final = {"growth_rate_ml_s": "growth_rate_sigma"}
"""Columns that are drawn as a band of one standard uncertainty."""
MOST_POINTS: Final = 20_000
MOST_LABEL: Final = 72
LABEL_WIDTH: Final = 30
"""Most characters in a line of the label of an axis, which is two inches high."""


def plot_columns(
    time_s: F64,
    columns: Mapping[str, Any],
    names: Sequence[str],
    title: str = "",
    events: Sequence[Event] = (),
) -> Figure:
    """One chart below the other, for each of ``names``, over a common time axis.

    ``columns`` maps names to arrays (n,). The marks of a user among ``events`` are vertical lines. Of long streams
    every n-th frame is drawn, at least 20 000 of them.

    Raises:
        ConfigError: there is no such column, or none at all. ImportError: matplotlib is not installed.
    """
    pyplot = load("matplotlib.pyplot", "A chart", "plot")
    if not columns:
        raise ConfigError("There is nothing to draw: these results have no values per frame.")
    names = list(names) or [name for name in DEFAULT if name in columns] or list(columns)[:1]
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise ConfigError(f"There is no column {', '.join(unknown)}; there are: {', '.join(columns)}.")
    step = max(1, len(time_s) // MOST_POINTS)
    figure, found = pyplot.subplots(
        len(names), 1, sharex=True, squeeze=False, figsize=(8.0, 1.0 + 2.0 * len(names)), layout="constrained"
    )
    for axes, name in zip(found[:, 0], names, strict=True):
        _draw(axes, name, time_s[::step], {key: values[::step] for key, values in columns.items()})
        _mark(axes, events)
    note = glyph_note([plain(title), *(plain(one.label) for one in events)])
    found[-1, 0].set_xlabel("\n".join(line for line in ("Time from the first frame (s)", note) if line))
    found[0, 0].set_title(plain(title, MOST_LABEL), loc="left", fontfamily=_families())
    return figure  # type: ignore[no-any-return]  # pyplot is imported at run time


def _draw(axes: Axes, name: str, time_s: F64, columns: Mapping[str, Any]) -> None:
    values = np.asarray(columns[name], dtype=np.float64)
    label = textwrap.fill(f"{long_name_of(name)} ({unit_of(name)})", LABEL_WIDTH)
    axes.set_ylabel(label, fontsize="small")
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "undetermined", transform=axes.transAxes, ha="center", va="center", color="0.4")
        return
    axes.plot(time_s, values, lw=0.9)
    sigma = columns.get(SIGMAS.get(name, ""))
    if sigma is not None:
        axes.fill_between(time_s, values - sigma, values + sigma, alpha=0.25, lw=0)


def _mark(axes: Axes, events: Sequence[Event]) -> None:
    for event in events:
        if event.by == "user" and event.time_s is not None:
            axes.axvline(event.time_s, color="0.4", lw=0.8, ls="--")
            where = axes.get_xaxis_transform()
            text = plain(event.label, MOST_LABEL)
            axes.text(
                event.time_s,
                0.99,
                text,
                transform=where,
                fontsize="x-small",
                va="top",
                fontfamily=_families(),
            )


def _families() -> list[str]:
    """The chosen fonts, then those that have what these do not."""
    import matplotlib as mpl

    return [*mpl.rcParams["font.family"], FONT, *installed_fonts()]
