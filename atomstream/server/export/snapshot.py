"""One picture as PNG, with axes in pixels, a scale of the brightness in counts, and what was measured at its time."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from atomstream.errors import ConfigError
from atomstream.plot_fonts import glyph_note, plain
from atomstream.results import rounded
from atomstream.server.export.growth import Growth, utc_text
from atomstream.server.export.report import styled
from atomstream.server.export.table import RATE
from atomstream.version import __version__

WIDTH_INCHES = 8.0
DPI = 150


def write_png(growth: Growth, path: Path) -> None:
    """Write the frame that is nearest to ``growth.at_s``, the newest one by default.

    Raises:
        ConfigError: the stream has no frames.
    """
    found = growth.frame_near(growth.at_s)
    if found is None:
        raise ConfigError("The stream has no frames, or those near this time were removed.")
    number, frame = found
    height, width = frame.shape
    content = io.BytesIO()  # in memory: after a failed write matplotlib would leave a file open
    with styled():
        from matplotlib.figure import Figure

        tall = min(max(0.2, height / width), 3.0) * 0.8 * WIDTH_INCHES
        figure = Figure(figsize=(WIDTH_INCHES, tall + 1.2), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        top = max(float(np.percentile(frame, 99.9)), 1.0)
        shown = axes.imshow(frame, cmap="gray", vmin=0.0, vmax=top, interpolation="nearest")
        axes.set_xlabel("x (px)")
        axes.set_ylabel("y (px)")
        figure.colorbar(shown, ax=axes, label="counts", extend="max" if frame.max() > top else "neither")
        axes.set_title("\n".join(_lines(growth, number)), fontsize=9, loc="left")
        figure.savefig(content, format="png", metadata={"Software": f"atomstream {__version__}"})
    path.write_bytes(content.getbuffer())


def _lines(growth: Growth, number: int) -> list[str]:
    """The name, the time, and the growth rate at the frame ``number``."""
    at = np.array([number], dtype=np.int64)

    def value_of(name: str) -> float:
        return float(growth.reader.values_at(growth.group / name, at)[0])

    time_s, origin_ms = value_of("time"), growth.status.origin_unix_ms
    when = [f"frame {number}"]
    if math.isfinite(time_s):
        when.append(f"{time_s:.3f} s after the first frame")
        if origin_ms is not None:
            when.append(utc_text(origin_ms + 1e3 * time_s))
    columns = growth.columns()
    rate = value_of(RATE) if RATE in columns else math.nan
    sigma = value_of("growth_rate_sigma") if "growth_rate_sigma" in columns else math.nan
    unit = growth.status.calibration.layer_unit or "monolayer"
    text = (
        f"{rounded(rate, sigma if sigma > 0 else None)} {plain(unit, 20)}/s"
        if rate == rate
        else "undetermined"
    )
    name = plain(growth.metadata.name, 80)
    sample = f" ({plain(growth.metadata.sample.name, 40)})" if growth.metadata.sample else ""
    lines = [f"{name}{sample}", ", ".join(when), f"growth rate: {text}"]
    return [line for line in (*lines, glyph_note(lines)) if line]
