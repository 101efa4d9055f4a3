"""Opens a file that a program is still writing, so that its frames are delivered as they are written."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from atomstream.checks import checked_path, number_in_range
from atomstream.errors import ConfigError

from .damage import IndexedFrames, UnreadableFileError
from .growing_frames import GrowingFrames
from .growing_video import GrowingVideo
from .growth import Growth
from .hdf5_source import HDF5_SUFFIXES, open_hdf5
from .image_files import IMAGE_SUFFIXES, TIFF_SUFFIXES
from .opening import VIDEO_SUFFIXES, Opener
from .options import ReadOptions
from .raw_source import RAW_SUFFIXES, RawSource, open_raw
from .tiff import open_tiff
from .zarr_source import is_zarr, open_zarr

Growing: TypeAlias = GrowingFrames | GrowingVideo

WHERE: Final = (
    "TIFF, HDF5 in SWMR mode, raw pixels (.img, .raw), Zarr folders, AVI, MKV and other videos but MP4"
)


def follow_source(
    path: str | PathLike[str],
    *,
    idle_end_s: float | None = None,
    fps: float | None = None,
    growth: Growth | None = None,
    **options: Any,
) -> Growing:
    """Open a file that is still being written; its ``chunks`` end after ``idle_end_s`` without a new frame, or by
    ``stop()``.

    It waits for the first frame: at most ``idle_end_s``, or 30 s. ``fps`` is the stream's rate in 1/s, for frames
    without times of their own. The other arguments are those of :func:`open_source`.

    Raises:
        ConfigError: as :func:`open_source`, and for a kind of file that can't be read before it is complete.
    """
    where = checked_path("path", path)
    if not where.exists():
        raise ConfigError(f"{where} does not exist")
    if fps is not None:
        number_in_range("fps", fps, 1e-3, 1e6, "1/s")
    wanted = ReadOptions(**options, growing=True)
    growth = growth or Growth(idle_end_s)
    suffix = where.suffix.casefold()
    if where.is_dir() and not is_zarr(where):
        raise ConfigError(
            f"{where} is a folder: give --camera folder:{where} in place of it to stream the images that are added"
        )
    if suffix in VIDEO_SUFFIXES and suffix != ".gif":
        return GrowingVideo(where, wanted, growth, fps=fps)
    return GrowingFrames(_reopen(where, suffix, wanted), growth, fps=fps)


def _reopen(path: Path, suffix: str, options: ReadOptions) -> Callable[[], IndexedFrames]:
    if path.is_dir():
        return lambda: open_zarr(path, options)
    if suffix in RAW_SUFFIXES or (options.geometry is not None and suffix not in IMAGE_SUFFIXES):
        return _Raw(path, options)
    options.refuse_geometry(str(path))
    if suffix in TIFF_SUFFIXES:
        return _Plain(path, options, open_tiff)
    if suffix in HDF5_SUFFIXES:
        return _Hdf5(path, options)
    raise ConfigError(f"{path} can't be followed: it can be read when it is complete. Followed are {WHERE}")


class _Plain:
    def __init__(self, path: Path, options: ReadOptions, opener: Opener) -> None:
        self._path, self._options, self._opener = path, options, opener

    def __call__(self) -> IndexedFrames:
        source = self._opener(self._path, self._options)
        if not isinstance(source, IndexedFrames) or len(source.files) > 1:
            raise ConfigError(f"{source.name} can't be followed: its frames are in several files")
        return source


class _Raw:
    """The geometry is found once: later the length of the file is seldom that of whole frames."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options = path, options
        self._first: RawSource | None = None

    def __call__(self) -> IndexedFrames:
        if self._options.geometry is None:
            raise ConfigError(
                f"{self._path} can't be followed without --geometry: what its header states can only be checked by the "
                "length of the whole file"
            )
        if self._first is None:
            self._first = open_raw(self._path, self._options)
            return self._first
        return RawSource(self._path, self._first.exact, self._options)


class _Hdf5:
    """A file that is not in SWMR mode must not change: what is read from it meanwhile may be wrong."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options = path, options
        self._was_shared = False
        self._found: tuple[int, int] | None = None

    def __call__(self) -> IndexedFrames:
        status = self._path.stat()
        state = (status.st_mtime_ns, status.st_size)
        changed = self._found not in (None, state)
        try:
            source = open_hdf5(self._path, self._options)
        except (UnreadableFileError, OSError) as error:  # in the middle of a change
            if changed and not self._was_shared:
                raise self._unsafe() from error
            raise
        self._was_shared = self._was_shared or source.is_shared
        if changed and not self._was_shared:
            raise self._unsafe()
        self._found = state
        return source

    def _unsafe(self) -> ConfigError:
        return ConfigError(
            f"{self._path} is being written, but not in SWMR mode of HDF5: its frames can't be read safely before "
            "it is closed. Switch on SWMR in that program (areaDetector: SWMRMode), or stream it later"
        )
