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
from .options import ReadOptions
from .tiff import open_tiff
from .video import open_video
from .zarr_source import is_zarr, open_zarr

Opener: TypeAlias = Callable[[Path, ReadOptions], FrameSource]

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".wmv", ".mpg", ".mpeg", ".ts", ".y4m", ".flv", ".ogv"}
)


def open_source(
    path: str | PathLike[str],
    *,
    dataset: str | None = None,
    axes: str | None = None,
    channel: str | None = None,
    levels: tuple[float, float] | None = None,
    video_range: str = "auto",
    order: str = "name",
    time_unit: str | None = None,
    ignore_times: bool = False,
    skip_damaged: bool = False,
) -> FrameSource:
    """Open recorded frames: .npy, .npz, TIFF, a video, one image, a folder of images, or Zarr.

    Before :meth:`FrameSource.chunks` only headers and the first frame of videos and images are read; .npz is loaded
    completely.

    Args:
        path: The file or folder.
        dataset: Array of an .npz file or a Zarr group (default ``frames``, or the only one).
        axes: What each axis of an array means, one letter each: Y or H rows, X or W columns, C or S colour samples
            or channels, N, T or Z frames. Default: what the file states, else (N, H, W) or (H, W).
        channel: ``r``, ``g``, ``b`` or ``luma`` of colour pictures, the number of a channel, or ``raw`` for samples
            as they are stored (indices of a palette, the mosaic of a colour camera). Default: pictures with equal
            colours are grey, others are refused.
        levels: Values of black and white, which become 0 and 255 of uint8; needed for signed, floating and 1-bit
            pixels, possible for all. Values outside are clipped, also infinities; NaN is refused.
        video_range: ``full`` or ``limited`` (black is 16, white 235); ``auto``: what the video states.
        order: ``name`` or ``mtime`` (time of the last change) for images of a folder.
        time_unit: Unit of the times in the file: ``s``, ``ms``, ``us``, ``ns``, ``min`` or ``h``.
        ignore_times: Ignore the times in the file; the frame rate alone is used.
        skip_damaged: Go on behind damaged frames.

    Raises:
        ConfigError: the file is missing, of an unknown type, damaged, empty, its pixels or axes can't be known without
            an option, which the message names, or a package is not installed.
    """
    where = Path(path)
    if not where.exists():
        raise ConfigError(f"{where} does not exist")
    options = ReadOptions(
        dataset, axes, channel, levels, video_range, order, time_unit, ignore_times, skip_damaged
    )
    return _opener(where)(where, options)


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
