"""Opens a file or folder with the reader for its type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from atomstream.checks import checked_path
from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .damage import UnreadableFileError
from .frame_source import EmptySourceError, FrameSource, first_chunk
from .hdf5_source import HDF5_SUFFIXES, open_hdf5
from .image_files import IMAGE_SUFFIXES, TIFF_SUFFIXES
from .images import open_images
from .norpix import open_norpix
from .npy_source import open_npy, open_npz
from .options import ReadOptions
from .ordering import ordered
from .raw_source import RAW_SUFFIXES, open_raw
from .sequence import SourceSequence, warn_of_order
from .signatures import content_note
from .tiff import open_tiff
from .video import open_video
from .zarr_source import is_zarr, open_zarr

logger = get_logger(__name__)

Opener: TypeAlias = Callable[[Path, ReadOptions], FrameSource]

VIDEO_SUFFIXES = frozenset(
    {
        ".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".wmv", ".mpg", ".mpeg", ".ts", ".y4m", ".flv", ".ogv",
        ".gif", ".mjpg", ".mjpeg", ".asf", ".mts", ".m2ts", ".3gp", ".h264", ".264", ".h265", ".265", ".hevc", ".mxf",
        ".m2v", ".nut", ".vob", ".qt",
    }
)  # fmt: skip

_KINDS: Final[dict[str, Opener]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".seq": open_norpix,
    **dict.fromkeys(HDF5_SUFFIXES, open_hdf5),
    **dict.fromkeys(VIDEO_SUFFIXES, open_video),
    **dict.fromkeys(IMAGE_SUFFIXES, open_images),
    **dict.fromkeys(TIFF_SUFFIXES, open_tiff),
}

_PACKERS: Final = {
    ".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip", ".7z": "7z x",
    ".tar": "tar xf", ".tgz": "tar xf", ".rar": "unrar x",
}  # fmt: skip
"""Programs that unpack a file which is packed as a whole."""


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
    skip_damaged: bool | None = None,
    geometry: str | None = None,
) -> FrameSource:
    """Open recorded frames: .npy, .npz, TIFF, a video, images, Zarr, HDF5, .seq, or raw pixels of known geometry.

    Before :meth:`FrameSource.chunks` only headers and the first frame are read; of .npz the checksum is compared.

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
        skip_damaged: Frames that can't be read are left out, :attr:`FrameSource.gaps` lists them, and after all whole
            frames :class:`DamagedSourceError` is raised. True: it is not raised. False: it is raised at the first
            such frame, after all frames before it.
        geometry: How raw pixels are stored, ``WxH[xPIXEL][+HEADER[+EACH]]``, such as ``640x480x16+640``.

    Raises:
        ConfigError: the file is missing, of an unknown type, damaged, empty, its pixels or axes can't be known without
            an option, which the message names, or a package is not installed.
    """
    where = checked_path("path", path)
    if not where.exists():
        raise ConfigError(f"{where} does not exist")
    if not (where.is_file() or where.is_dir()):
        raise ConfigError(f"{where} is neither a file nor a folder, but a pipe, a device or a socket")
    options = ReadOptions(
        dataset, axes, channel, levels, video_range, order, time_unit, ignore_times, skip_damaged, geometry
    )
    opener = _opener(where, options)
    if where.is_file() and not where.stat().st_size:
        raise EmptySourceError(f"{where} can't be read: the file is empty")
    try:
        source = opener(where, options)
    except UnreadableFileError as error:
        note = content_note(where, _alike(where.suffix.casefold()))
        if not note:
            raise
        raise UnreadableFileError(str(where), error.kind, f"{error.reason}{note}") from error
    _read_first(source)
    return source


def _alike(suffix: str) -> frozenset[str]:
    """Return the endings that have the same reader."""
    return frozenset(other for other, opener in _KINDS.items() if opener is _KINDS.get(suffix))


def open_sources(paths: Sequence[str | PathLike[str]], **options: Any) -> FrameSource:
    """Open one file, or several in a row as one recording; the options are those of :func:`open_source`."""
    if isinstance(paths, str | PathLike) or not isinstance(paths, Sequence):
        raise TypeError(f"paths must be a list of paths, not {type(paths).__name__}.")
    if not paths:
        raise ConfigError("no file is given")
    warn_of_order([checked_path("paths", path) for path in paths])
    sources: list[FrameSource] = []
    contained: set[Path] = set()
    for path in map(Path, paths):
        if path.resolve() in contained:
            logger.warning("%s is already contained in the files before it, which name its frames", path)
            continue
        sources.append(open_source(path, **options))
        contained |= {file.resolve() for file in getattr(sources[-1], "files", ())}
    return sources[0] if len(sources) == 1 else SourceSequence(sources)


def _read_first(source: FrameSource) -> None:
    """Read the first frame, so that a file of which nothing can be read is found before anything is sent.

    Raises :class:`ConfigError` if there is none.
    """
    if first_chunk(source) is None:
        gaps = f": {source.gaps[0]}" if source.gaps else ""
        raise EmptySourceError(f"{source.name} is empty: no frame can be read{gaps}")


def _parts_in(folder: Path) -> list[Path]:
    """Return the files of a folder that holds a recording in several files of one kind; empty for others.

    Images are not meant: each of them is one frame, and :func:`open_images` reads them.
    """
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    if any(file.suffix.casefold() in IMAGE_SUFFIXES for file in files):
        return []
    parts = [file for file in files if file.suffix.casefold() in _KINDS]
    return parts if len({_KINDS[file.suffix.casefold()] for file in parts}) == 1 else []


def _open_parts(folder: Path, options: ReadOptions) -> FrameSource:
    paths = ordered(_parts_in(folder), options.order)
    arguments = {
        field.name: getattr(options, field.name) for field in fields(options) if field.name != "growing"
    }
    return open_sources(paths, **arguments)


def _opener(path: Path, options: ReadOptions) -> Opener:
    suffix = path.suffix.casefold()
    raw = suffix in RAW_SUFFIXES or (options.geometry is not None and suffix not in _KINDS)
    if options.geometry is not None and not raw and suffix not in VIDEO_SUFFIXES:
        options.refuse_geometry(str(path))
    if path.is_dir():
        options.refuse_geometry(str(path))
        if is_zarr(path):
            return open_zarr
        return _open_parts if _parts_in(path) else open_images
    if path.name.casefold().endswith(".zarr.zip"):
        return open_zarr
    if raw:
        return open_raw
    if suffix in _PACKERS:
        raise ConfigError(
            f"{path} is packed as a whole ({suffix}): unpack it first, such as by {_PACKERS[suffix]}, and give the "
            "unpacked file"
        )
    try:
        return _KINDS[suffix]
    except KeyError:
        known = ", ".join(sorted(_KINDS.keys() | RAW_SUFFIXES))
        raise ConfigError(
            f"{path} has an unknown type{content_note(path, frozenset())}; frames can be read from {known}, .zarr.zip, "
            "folders of images and Zarr folders; raw pixels from any file with --geometry WxH[xPIXEL][+HEADER]"
        ) from None
