"""Frames from a folder of images, one per file, in natural order of the names (frame2 before frame10)."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

from .frame_source import (
    SourceChunk,
    checked_chunk_size,
    checked_dtype,
    optional_package,
    refuse_dataset,
)

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".pgm"}) | TIFF_SUFFIXES

_GREY_TOLERANCE = 3
"""Largest difference of the channels of a grey JPEG after its conversion."""


class ImagesSource:
    """Grey images of one size and depth, read chunk by chunk. Raises :class:`ConfigError` for others."""

    fps: float | None = None

    def __init__(self, name: str, paths: list[Path]) -> None:
        self.name = name
        self._paths = paths
        self.n_frames: int | None = len(paths)
        first = read_image(paths[0])
        self.frame_shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.dtype = checked_dtype(str(paths[0]), first.dtype)

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all images in order, at most ``chunk_size`` at a time."""
        step = checked_chunk_size(chunk_size)
        for begin in range(0, len(self._paths), step):
            yield SourceChunk(np.stack([self._read(path) for path in self._paths[begin : begin + step]]))

    def _read(self, path: Path) -> np.ndarray[Any, Any]:
        frame = read_image(path)
        if frame.shape != self.frame_shape or frame.dtype.newbyteorder("=") != self.dtype:
            raise ConfigError(
                f"{path} is {frame.shape} {frame.dtype}, but {self._paths[0].name} is {self.frame_shape} "
                f"{self.dtype}; a stream's frames are all of one size"
            )
        return frame.astype(self.dtype, copy=False)


def open_images(path: Path, dataset: str | None) -> ImagesSource:
    """Open a folder of images, or one image; other files in the folder are ignored."""
    refuse_dataset(str(path), dataset)
    if path.is_file():
        return ImagesSource(str(path), [path])
    images = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    images = [file for file in images if not file.name.startswith(".")]
    if not images:
        raise ConfigError(f"{path} is empty: it holds no {', '.join(sorted(IMAGE_SUFFIXES))} files")
    kinds = Counter(file.suffix.lower() for file in images)
    if len(kinds) > 1:
        found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
        raise ConfigError(
            f"{path} holds images of several kinds ({found}); keep those of one camera in a folder"
        )
    return ImagesSource(str(path), sorted(images, key=natural_key))


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that compares numbers in file names by value."""
    parts = re.split(r"(\d+)", path.stem.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def read_image(path: Path) -> np.ndarray[Any, Any]:
    """Read one grey image (H, W), or RGB with equal channels. Raises :class:`ConfigError` for others."""
    frame = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else _read_with_av(path)
    if frame.ndim == 3 and np.ptp(frame[..., :3], axis=2).max() <= _GREY_TOLERANCE:
        frame = frame[..., 1]
    if frame.ndim == 3:
        raise ConfigError(f"{path} is a colour image {frame.shape}; convert it to grey first")
    if frame.ndim != 2:
        raise ConfigError(f"{path} has the shape {frame.shape}; in a folder each file is one frame (H, W)")
    return frame


def _read_tiff(path: Path) -> np.ndarray[Any, Any]:
    tifffile = optional_package("tifffile", "video", "Reading TIFF")
    try:
        with tifffile.TiffFile(path) as tif:
            if len(tif.pages) != 1:
                raise ConfigError(f"{path} has {len(tif.pages)} pages; in a folder each file is one frame")
            return np.asarray(tif.pages[0].asarray())
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} can't be read as TIFF: {error}") from error


def _read_with_av(path: Path) -> np.ndarray[Any, Any]:
    av = optional_package("av", "video", "Reading images")
    try:
        # Opened by content: FFmpeg takes a name with % for a pattern of names.
        with av.open(io.BytesIO(path.read_bytes())) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise ConfigError(f"{path} can't be read as an image: {error}") from error
    if frame.format.name in {"gray", "gray16le", "gray16be"}:
        return np.asarray(frame.to_ndarray())
    if frame.format.components[0].bits > 8:  # rgb24 would lose the low bits
        raise ConfigError(f"{path} is a colour image ({frame.format.name}); convert it to grey first")
    return np.asarray(frame.to_ndarray(format="rgb24"))
