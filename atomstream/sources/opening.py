"""Which reader is for which file."""

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

    ``dataset`` names the array in .npz and in a Zarr group (default ``frames``). Nothing but the headers
    and, of videos and images, the first frame is read before :meth:`FrameSource.chunks`; only .npz is
    loaded whole.

    Raises :class:`ConfigError` with one sentence where the file is missing, of an unknown kind, damaged,
    empty, in colour (but of videos the luma is taken), of another dtype than uint8 and uint16, or needs a
    package that isn't installed.
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
            f"{path} is of no known kind; frames are read from {known}, folders of images and Zarr folders"
        ) from None
