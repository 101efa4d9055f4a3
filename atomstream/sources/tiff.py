"""Frames from a TIFF stack, page by page; uncompressed stacks are read as one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .axes import COUNTING, layout
from .damage import UnreadableFileError
from .file_frames import FileFrames
from .frame_source import FrameSource, Gap
from .options import ReadOptions
from .scaling import scaling_text
from .tiff_chain import broken_link
from .tiff_pages import TiffArray, check_alike, opened_tiff, pixel_format
from .tiff_times import stated_rate, stated_times


def open_tiff(path: Path, options: ReadOptions) -> FrameSource:
    """Open a TIFF with pages of one size (also ImageJ, OME and BigTIFF). Pages up to a damaged one are read."""
    options.refuse_dataset(str(path))
    name = str(path)
    link = broken_link(path)
    if link is not None and not link.pages:
        raise UnreadableFileError(name, "TIFF", f"{link.reason} (byte {link.target})")
    with opened_tiff(path) as tif:
        series = _checked_series(path, list(tif.series))
        check_alike(name, series)
        array = _array(path, tif, series)
        axes = array.axes if isinstance(array, TiffArray) else str(series[0].axes)
        known = _stated_axes(axes, tuple(array.shape))
        place = layout(name, tuple(array.shape), options.axes, known=known)
        source = ArraySource.of_file(
            array,
            name,
            options,
            pixels=pixel_format(name, series[0].keyframe, place.n_samples),
            known_axes=known,
            scaling=_calibration(tif),
            fps=None if options.ignore_times else stated_rate(tif),
            times_s=None if options.ignore_times else stated_times(tif, place.n_frames),
        )
        if isinstance(array, TiffArray):
            source.files = array.files
        states_count = series[0].kind in ("imagej", "shaped")
    if link is not None and source.lost_tail is None and not states_count:
        source.lost_tail = Gap(source.n_frames or 0, None, path.name, link.target, link.reason)
    return source


def _calibration(tif: Any) -> str:
    """Return the calibration of ImageJ, by which values follow from the numbers of the file; empty without one.

    ``cf`` is the number of its function, 0 for ``c0 + c1 * number``. ImageJ stores signed pixels with an offset.
    """
    stated = tif.imagej_metadata or {}
    if "cf" not in stated:
        return ""
    if stated["cf"] != 0:
        return f"calibration function {stated['cf']} of ImageJ"
    return scaling_text(c0=(stated.get("c0"), 0.0), c1=(stated.get("c1"), 1.0))


def _array(path: Path, tif: Any, series: list[Any]) -> FileFrames | TiffArray:
    """Return the pixels: in one piece where they are so in the file, else page by page."""
    first = series[0]
    if len(series) == 1 and first.dataoffset is not None:
        dtype = np.dtype(tif.byteorder + np.dtype(first.dtype).char)
        return FileFrames(path, dtype, tuple(int(n) for n in first.shape), int(first.dataoffset))
    return TiffArray(path, series)


def _stated_axes(axes: str, shape: tuple[int, ...]) -> str | None:
    """Return the axes that a file states, None if it states nothing.

    Programs that store arrays of any kind call each axis Q. Stacks without a time axis are often called channels (C),
    one page for each: a file with no other axis for frames has frames there.
    """
    if axes.count("Q") > 1:
        return None
    longer = [letter for letter, length in zip(axes, shape, strict=True) if length != 1]
    if "C" in longer and not set(longer) & set(COUNTING):
        return axes.replace("C", "N")
    return axes


def _checked_series(path: Path, series: list[Any]) -> list[Any]:
    """Check the series of tifffile: one, or many if a camera appended page by page. Returns them."""
    if not series:
        raise UnreadableFileError(str(path), "TIFF", "it has no pages")
    kinds = {f"{part.keyframe.shape} {part.dtype}" for part in series}
    if len(kinds) > 1:
        sizes = ", ".join(sorted(kinds)[:3])
        raise ConfigError(f"{path} mixes pages of different sizes ({sizes}); a stream's are all of one size")
    return series
