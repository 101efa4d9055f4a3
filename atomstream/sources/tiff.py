"""Frames of a TIFF stack, page by page; uncompressed stacks are memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .frame_source import (
    FrameSource,
    SourceChunk,
    checked_chunk_size,
    checked_dtype,
    checked_stack,
    optional_package,
    refuse_dataset,
)


class TiffSource:
    """A stack whose pages are compressed or scattered: each is read when its chunk is."""

    fps: float | None = None

    def __init__(self, path: Path, series: Any) -> None:
        self.name = str(path)
        self.dtype = checked_dtype(self.name, series.dtype)
        n_frames, height, width = checked_stack(self.name, tuple(series.shape))
        self.n_frames: int | None = n_frames
        self.frame_shape = (height, width)
        self._path = path

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all pages in order, at most ``chunk_size`` at a time."""
        step = checked_chunk_size(chunk_size)
        tifffile = _tifffile()
        with tifffile.TiffFile(self._path) as tif:
            pages = list(tif.series[0].pages)
            for begin in range(0, len(pages), step):
                block = [self._read(page, begin + i) for i, page in enumerate(pages[begin : begin + step])]
                yield SourceChunk(np.stack(block))

    def _read(self, page: Any, number: int) -> np.ndarray[Any, Any]:
        try:
            frame = np.asarray(page.asarray())
        except Exception as error:  # a decoder raises whatever its library does
            raise ConfigError(f"{self.name}: page {number} can't be read: {error}") from error
        return frame.astype(self.dtype, copy=False)


def open_tiff(path: Path, dataset: str | None) -> FrameSource:
    """Open a TIFF of grey pages of one size, 8 or 16 bits (ImageJ's, OME and BigTIFF too)."""
    refuse_dataset(str(path), dataset)
    tifffile = _tifffile()
    try:
        tif = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as TIFF: {error}") from error
    with tif:
        series = _only_series(path, tif)
        if series.dataoffset is not None:
            return ArraySource(tifffile.memmap(path, series=0, mode="r"), name=str(path))
        return TiffSource(path, series)


def _only_series(path: Path, tif: Any) -> Any:
    if not len(tif.series):
        raise ConfigError(f"{path} is empty: it has no pages")
    if len(tif.series) > 1:
        sizes = ", ".join(str(series.shape) for series in tif.series[:3])
        raise ConfigError(
            f"{path} mixes pages of different sizes ({sizes}); a stream's frames are all of one size"
        )
    series = tif.series[0]
    if "S" in series.axes:
        raise ConfigError(f"{path} holds colour frames {series.shape}; make them grey first")
    return series


def _tifffile() -> Any:
    return optional_package("tifffile", "video", "Reading TIFF")
