"""When the frames of a TIFF stack were taken, as ImageJ, OME-TIFF and Micro-Manager state it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np

from .frame_source import Times
from .times import unit_seconds


def stated_rate(tif: Any) -> float | None:
    """Return the frame rate in 1/s that the metadata of a file of tifffile state, None if they state none.

    ImageJ's ``fps`` is the speed of its display, and is ignored.
    """
    imagej = tif.imagej_metadata or {}
    step = _length(imagej.get("finterval"), imagej.get("tunit", "s"))
    if step is None and tif.is_micromanager:
        summary = (tif.micromanager_metadata or {}).get("Summary") or {}
        step = _length(summary.get("Interval_ms"), "ms")
    if step is None and (pixels := _ome_pixels(tif)) is not None:
        step = _length(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return 1.0 / step if step else None


def stated_times(tif: Any, n_frames: int) -> Times | None:
    """Return the times (n,) in s that OME-TIFF states for each frame, None without one for each."""
    pixels = _ome_pixels(tif)
    if pixels is None:
        return None
    planes = [element for element in pixels if element.tag.endswith("}Plane")]
    if len(planes) != n_frames:
        return None
    planes.sort(key=lambda plane: tuple(int(plane.get(axis, 0)) for axis in ("TheT", "TheZ", "TheC")))
    times = [_length(plane.get("DeltaT"), plane.get("DeltaTUnit", "s"), least=0.0) for plane in planes]
    known = [time for time in times if time is not None]
    return np.array(known) if len(known) == n_frames else None


def _length(value: Any, unit: Any, least: float = 1e-9) -> float | None:
    """Return a time in s, None if there is none, or if its unit is not known."""
    seconds = unit_seconds(unit)
    try:
        time = float(value) * (seconds or 0.0)
    except (TypeError, ValueError):
        return None
    return time if seconds is not None and least <= time < float("inf") else None


def _ome_pixels(tif: Any) -> ElementTree.Element | None:
    if not tif.is_ome or not tif.ome_metadata:
        return None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return None
    found = [element for element in root.iter() if element.tag.endswith("}Pixels")]
    return found[0] if len(found) == 1 else None
