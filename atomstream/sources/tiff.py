"""Frames from a TIFF stack, page by page; uncompressed stacks are memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .axes import COUNTING, Sliceable, layout
from .frame_source import FrameSource, SourceChunk, optional_package
from .options import ReadOptions
from .tiff_pages import TiffArray, pixel_format
from .tiff_times import stated_rate, stated_times


class TiffSource:
    """A stack with compressed or scattered pages, which are read chunk by chunk."""

    def __init__(self, path: Path, options: ReadOptions, source: ArraySource) -> None:
        self._path = path
        self._options = options
        self.name = str(path)
        self.fps = source.fps
        self.time_step_s = source.time_step_s
        self.dtype = source.dtype
        self.n_frames: int | None = source.n_frames
        self.frame_shape = source.frame_shape

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time."""
        with _opened(self._path) as tif:
            series = list(tif.series)
            source = _array_source(self.name, tif, TiffArray(self.name, series), self._options)
            yield from source.chunks(chunk_size)


def open_tiff(path: Path, options: ReadOptions) -> FrameSource:
    """Open a TIFF with pages of one size (also ImageJ, OME and BigTIFF)."""
    options.refuse_dataset(str(path))
    with _opened(path) as tif:
        series = _checked_series(path, list(tif.series))
        if len(series) == 1 and series[0].dataoffset is not None:
            mapped = _tifffile().memmap(path, series=0, mode="r")
            return _array_source(str(path), tif, mapped, options)
        source = _array_source(str(path), tif, TiffArray(str(path), series), options)
        return TiffSource(path, options, source)


def _array_source(name: str, tif: Any, array: Sliceable, options: ReadOptions) -> ArraySource:
    series = tif.series
    axes = array.axes if isinstance(array, TiffArray) else str(series[0].axes)
    known = _stated_axes(axes, tuple(array.shape))
    place = layout(name, tuple(array.shape), options.axes, known=known)
    return ArraySource(
        array,
        name=name,
        axes=options.axes,
        channel=options.channel,
        levels=options.levels,
        pixels=pixel_format(name, series[0].keyframe, place.n_samples),
        known_axes=known,
        fps=None if options.ignore_times else stated_rate(tif),
        times_s=None if options.ignore_times else stated_times(tif, place.n_frames),
    )


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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; errors of its parser become ConfigError."""
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except (ConfigError, GeneratorExit):
        raise
    except Exception as error:  # for damaged files the parser raises struct.error and others
        raise ConfigError(f"{path} can't be read as TIFF: {error}") from error


def _checked_series(path: Path, series: list[Any]) -> list[Any]:
    """Check the series of tifffile: one, or many if a camera appended page by page. Returns them."""
    if not series:
        raise ConfigError(f"{path} is empty: it has no pages")
    kinds = {f"{part.keyframe.shape} {part.dtype}" for part in series}
    if len(kinds) > 1:
        sizes = ", ".join(sorted(kinds)[:3])
        raise ConfigError(f"{path} mixes pages of different sizes ({sizes}); a stream's are all of one size")
    return series


def _tifffile() -> Any:
    return optional_package("tifffile", "video", "Reading TIFF")
