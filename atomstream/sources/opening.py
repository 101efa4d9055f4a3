"""Opens a file or folder with the reader for its type."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from atomstream.errors import ConfigError

from .arrays import open_npy, open_npz
from .frame_source import FrameSource
from .images import IMAGE_SUFFIXES, TIFF_SUFFIXES, open_images
from .tiff import open_tiff
from .video import open_video
from .zarr_source import is_zarr, open_zarr

Opener: TypeAlias = Callable[[Path, str | None], FrameSource]

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".wmv", ".mpg", ".mpeg", ".ts", ".y4m", ".flv", ".ogv"}
)


def open_source(path: str | PathLike[str], *, dataset: str | None = None) -> FrameSource:
    """Open recorded frames: .npy, .npz, TIFF, a video, one image, a folder of images, or Zarr.

    ``dataset`` names the array in .npz and in a Zarr group (default ``frames``). Before
    :meth:`FrameSource.chunks` only headers and the first frame of videos and images are read; .npz is loaded
    completely.

    Raises :class:`ConfigError` if the file is missing, of an unknown type, damaged, empty or in colour (videos are
    converted to luma), has another dtype than uint8 and uint16, or needs a package that is not installed.
    """
    where = Path(path)
    if not where.exists():
        raise ConfigError(f"{where} does not exist")
    return _opener(where)(where, dataset)


def _opener(path: Path) -> Opener:
    if path.is_dir():
        return open_zarr if is_zarr(path) else open_images
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return open_tiff
    if suffix in VIDEO_SUFFIXES:
        return open_video
    if suffix in IMAGE_SUFFIXES:
        return open_images
    try:
        return {".npy": open_npy, ".npz": open_npz}[suffix]
    except KeyError:
        known = ", ".join(sorted({".npy", ".npz"} | TIFF_SUFFIXES | IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise ConfigError(
            f"{path} has an unknown type; frames can be read from {known}, folders of images and Zarr folders"
        ) from None
