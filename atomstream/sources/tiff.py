"""Frames from a TIFF stack, page by page; uncompressed stacks are memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """A stack with compressed or scattered pages, which are read chunk by chunk."""

    fps: float | None = None

    def __init__(self, path: Path, series: Sequence[Any]) -> None:
        self.name = str(path)
        self.dtype = checked_dtype(self.name, series[0].dtype)
        stacks = [checked_stack(self.name, tuple(part.shape)) for part in series]
        self.n_frames: int | None = sum(n_frames for n_frames, _, _ in stacks)
        self.frame_shape = stacks[0][1:]
        self._path = path

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all pages in order, at most ``chunk_size`` at a time."""
        step = checked_chunk_size(chunk_size)
        tifffile = _tifffile()
        with tifffile.TiffFile(self._path) as tif:
            pages = [page for series in tif.series for page in series.pages]
            for begin in range(0, len(pages), step):
                block = [self._read(page, begin + i) for i, page in enumerate(pages[begin : begin + step])]
                yield SourceChunk(np.stack(block))

    def _read(self, page: Any, number: int) -> np.ndarray[Any, Any]:
        try:
            frame = np.asarray(page.asarray())
        except Exception as error:  # decoders raise errors of their libraries
            raise ConfigError(f"{self.name}: page {number} can't be read: {error}") from error
        return frame.astype(self.dtype, copy=False)


def open_tiff(path: Path, dataset: str | None) -> FrameSource:
    """Open a TIFF with grey pages of one size, 8 or 16 bits (also ImageJ, OME and BigTIFF)."""
    refuse_dataset(str(path), dataset)
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(path) as tif:
            series = _checked_series(path, list(tif.series))
            if len(series) == 1 and series[0].dataoffset is not None:
                return ArraySource(tifffile.memmap(path, series=0, mode="r"), name=str(path))
            return TiffSource(path, series)
    except ConfigError:
        raise
    except Exception as error:  # for damaged files the parser raises struct.error and others
        raise ConfigError(f"{path} can't be read as TIFF: {error}") from error


def _checked_series(path: Path, series: list[Any]) -> list[Any]:
    """Check the series of tifffile: one, or many if a camera appended page by page. Returns them."""
    if not series:
        raise ConfigError(f"{path} is empty: it has no pages")
    kinds = {f"{part.shape[-2:]} {part.dtype}" for part in series}
    if len(kinds) > 1:
        sizes = ", ".join(sorted(kinds)[:3])
        raise ConfigError(f"{path} mixes pages of different sizes ({sizes}); a stream's are all of one size")
    if "S" in series[0].axes:
        raise ConfigError(f"{path} holds colour frames {series[0].shape}; make them grey first")
    return series


def _tifffile() -> Any:
    return optional_package("tifffile", "video", "Reading TIFF")
