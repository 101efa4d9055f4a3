"""The camera ``folder:PATH``: each new image in a folder is a frame. For cameras whose program only writes files.

A file is read when it is complete: its size and time of change have not changed for ``SETTLE_S``, and it can be
decoded. Files are taken in the order of their names as people count (frame2 before frame10); a file that is still being
written delays those after it. What is in the folder at the start is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from atomstream.cameras.camera import (
    NO_PIXELS,
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    grey,
    refuse_settings,
)
from atomstream.errors import CameraError, CameraLostError, ConfigError
from atomstream.sources import open_source
from atomstream.sources.image_files import IMAGE_SUFFIXES
from atomstream.sources.ordering import ordered

SUFFIXES: Final = IMAGE_SUFFIXES | {".npy"}
"""Files with other suffixes are ignored, and so are hidden ones (``.name``)."""

POLL_S: Final = 0.02
"""Interval, in s, at which the folder is listed."""

SETTLE_S: Final = 0.1
"""A file that has not changed for this time in s counts as complete, if it can be decoded."""

DAMAGED_S: Final = 5.0
"""A file that can't be decoded and has not changed for this time in s is damaged: it is reported and left out."""


class _Version(NamedTuple):
    """Time and size of a file: a program may write another image under the same name."""

    mtime_ns: int
    size: int


class WatchFolder:
    """Delivers the new images of the folder ``which``; a file with several pictures gives several frames.

    The time of a frame is the time at which its file was written. There is no counter and no stated rate.
    """

    def __init__(self, which: str) -> None:
        self.name = f"folder:{which}"
        self._folder = Path(which)
        if not which:
            raise ConfigError("folder: state a path, such as folder:D:/frames")
        self._done: dict[Path, _Version] = {}
        self._since: dict[Path, tuple[_Version, float]] = {}
        self._ready: Iterator[CameraFrame] = iter(())
        self._is_open = False

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """Return an empty list: any folder can be watched, so a search finds none in particular."""
        return []

    def open(self, settings: CameraSettings) -> CameraInfo:
        """Note what the folder holds, so that only new images are delivered. A rate is accepted and not used."""
        refuse_settings(self.name, settings, "fps")
        try:
            if not self._is_open:
                self._done = dict(self._files())
        except OSError as error:
            raise CameraError(f"{self.name} can't be watched: {error}.") from error
        self._is_open = True
        return CameraInfo(model=f"folder {self._folder}", shape=(0, 0))

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """Return the next new image that is whole; see :class:`atomstream.cameras.Camera`."""
        deadline = time.monotonic() + timeout_s
        while (frame := next(self._ready, None)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(POLL_S, left))
            self._ready = self._whole_files()
        return frame

    def close(self) -> None:
        """Watch no more. Images that are written until the next :meth:`open` are left out."""
        self._is_open = False
        self._ready = iter(())
        self._since.clear()

    def _files(self) -> list[tuple[Path, _Version]]:
        with os.scandir(self._folder) as entries:
            found = [
                (Path(entry.path), entry.stat())
                for entry in entries
                if not entry.name.startswith(".")
                and Path(entry.name).suffix.lower() in SUFFIXES
                and entry.is_file()
            ]
        return [(path, _Version(stat.st_mtime_ns, stat.st_size)) for path, stat in found]

    def _whole_files(self) -> Iterator[CameraFrame]:
        """Yield the frames of the new files in order, up to the first one that may not be whole yet."""
        try:
            files = self._files()
        except OSError as error:
            raise CameraLostError(f"The folder {self._folder} can't be read: {error}.") from error
        versions = dict(one for one in files if self._done.get(one[0]) != one[1])
        new = {path: versions[path] for path in ordered(list(versions))}
        now = time.monotonic()
        # The age of every new file begins now, also of those that wait for an earlier one.
        self._since = {path: self._seen(path, version, now) for path, version in new.items()}
        for path, version in new.items():
            age = now - self._since[path][1]
            frames = self._read(path, version, age) if age >= SETTLE_S else None
            if frames is None:
                return
            self._done[path] = version
            yield from frames

    def _seen(self, path: Path, version: _Version, now: float) -> tuple[_Version, float]:
        before = self._since.get(path)
        return before if before is not None and before[0] == version else (version, now)

    def _read(self, path: Path, version: _Version, age: float) -> list[CameraFrame] | None:
        """Return the frames of a file; None if it can't be decoded, but may still be written."""
        time_ms = version.mtime_ns / 1e6
        try:
            chunks = list(open_source(path).chunks(1))
        except (ConfigError, OSError) as error:
            if age < DAMAGED_S:
                return None
            return [CameraFrame(NO_PIXELS, None, time_ms, problem=str(error))]
        return [CameraFrame(grey(self.name, chunk.frames[0]), None, time_ms) for chunk in chunks]
