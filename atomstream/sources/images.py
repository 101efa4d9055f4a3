"""Frames from a folder of images, one per file, in the order of their names as people count, or of their times."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

from .av_pixels import Picture, picture_of, turned_pixels
from .exif import exif_orientation
from .frame_source import SourceChunk, checked_chunk_size, optional_package
from .options import ReadOptions
from .ordering import ordered
from .pgm import maximum, read_pgm
from .pixels import PixelReader
from .tiff import open_tiff

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".pgm"}) | TIFF_SUFFIXES


class ImagesSource:
    """Grey images of one size and depth, read chunk by chunk. Raises :class:`ConfigError` for others."""

    fps: float | None = None

    def __init__(self, name: str, paths: list[Path], options: ReadOptions) -> None:
        self.name = name
        self._paths = paths
        self._options = options
        self.n_frames: int | None = len(paths)
        self._deep = any(maximum(path) > 255 for path in paths if path.suffix.lower() == ".pgm")
        first = read_image(paths[0], options, deep=self._deep)
        self.frame_shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.dtype = first.dtype

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all images in order, at most ``chunk_size`` at a time."""
        step = checked_chunk_size(chunk_size)
        for begin in range(0, len(self._paths), step):
            yield SourceChunk(np.stack([self._read(path) for path in self._paths[begin : begin + step]]))

    def _read(self, path: Path) -> np.ndarray[Any, Any]:
        frame = read_image(path, self._options, deep=self._deep)
        if frame.shape != self.frame_shape or frame.dtype != self.dtype:
            raise ConfigError(
                f"{path} is {frame.shape} {frame.dtype}, but {self._paths[0].name} is {self.frame_shape} "
                f"{self.dtype}; a stream's frames are all of one size"
            )
        return frame


def open_images(path: Path, options: ReadOptions) -> ImagesSource:
    """Open a folder of images, or one image; other files in the folder are ignored."""
    options.refuse_dataset(str(path))
    if path.is_file():
        return ImagesSource(str(path), [path], options)
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
    return ImagesSource(str(path), ordered(images, options.order), options)


def read_image(path: Path, options: ReadOptions, *, deep: bool = False) -> np.ndarray[Any, Any]:
    """Read one image as a frame (H, W), uint8 or uint16. Raises :class:`ConfigError` for others.

    ``deep``: PGM images are uint16, whatever their own maximum.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        return _read_tiff(path, options)
    if path.suffix.lower() == ".pgm":
        picture = read_pgm(path, deep=deep)
    else:
        data = path.read_bytes()
        picture = turned_pixels(_read_with_av(path, data, options), exif_orientation(data))
    reader = PixelReader(str(path), picture.pixels, options)
    frame: np.ndarray[Any, Any] = reader.frames(picture.samples[None], 0, picture.chroma)[0]
    return frame


def _read_tiff(path: Path, options: ReadOptions) -> np.ndarray[Any, Any]:
    source = open_tiff(path, options)
    if source.n_frames != 1:
        raise ConfigError(f"{path} has {source.n_frames} pages; in a folder each file is one frame")
    frame: np.ndarray[Any, Any] = next(iter(source.chunks(1))).frames[0]
    return frame


def _read_with_av(path: Path, data: bytes, options: ReadOptions) -> Picture:
    av = optional_package("av", "video", "Reading images")
    try:
        # Opened by content: FFmpeg takes a name with % for a pattern of names.
        with av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise ConfigError(f"{path} can't be read as an image: {error}") from error
    return picture_of(str(path), frame, options)
