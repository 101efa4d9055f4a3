"""Arrays of analysis results in the stream's Zarr group, one value per frame.

Dozens of them are written ten times a second. So a write is visible to readers at once, but only
:meth:`ResultArrays.sync` makes it durable; after a power cut the analysis repeats what was not synced.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.long_names import long_name_of
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.column import Column
from atomstream.server.archive.frame_runs import Numbers
from atomstream.server.archive.timestamp_columns import NAMES
from atomstream.server.archive.zarr_group import COLUMN_DTYPES, FRAMES, RESULT

F32: TypeAlias = npt.NDArray[np.float32]
_VALUE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ResultArrays:
    """The results of one stream: float32 along ``time``, NaN where undetermined. Thread-safe."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._write_lock = threading.Lock()
        self._unsynced: dict[str, set[Path]] = {}

    def write(
        self, start: int, columns: Mapping[str, npt.NDArray[np.floating]], units: Mapping[str, str]
    ) -> None:
        """Write ``columns`` (each (n,)) from frame ``start`` on. An array is created with its first finite number.

        Raises:
            OSError: from the disk; writing again is harmless.
        """
        with self._write_lock:
            existing = self._index.group.results()
            new = [name for name in columns if name not in existing and np.isfinite(columns[name]).any()]
            if new:
                existing |= self._make(new, units)
            for name in columns.keys() & existing.keys():
                touched = existing[name].put([(start, columns[name])])
                self._unsynced.setdefault(name, set()).update(touched)

    def _make(self, names: Iterable[str], units: Mapping[str, str]) -> dict[str, Column]:
        with self._index.writing:
            made = {
                name: self._index.group.column(
                    name, "time", "float32", float("nan"), self._about(name, units)
                )
                for name in names
            }
            self._index.publish()
        for name in made:
            with (
                self._index.writing
            ):  # one at a time, so that a commit of a chunk does not wait for all of them
                self._index.group.write_document(name)
        return made

    @staticmethod
    def _about(name: str, units: Mapping[str, str]) -> dict[str, str]:
        return {**RESULT, "units": units.get(name, "1"), "long_name": long_name_of(name)}

    def sync(self) -> None:
        """Make all writes durable, and write each array's own document with its present length.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        columns = self._index.group.results()
        for name in tuple(self._unsynced):
            with (
                self._write_lock
            ):  # one column at a time, so that a batch of results does not wait for all of them
                columns[name].sync(self._unsynced[name])
                del self._unsynced[name]
            with self._index.writing:
                self._index.group.write_document(name)

    def names(self) -> dict[str, str]:
        """The unit of each existing array, by name."""
        with self._index.writing:
            group = self._index.group
            return {
                name: str(group.documents[name]["attributes"].get("units", "1")) for name in group.results()
            }

    def read(self, names: Iterable[str], start: int, stop: int) -> dict[str, F32]:
        """Frames ``start`` .. ``stop`` of the arrays ``names``; unknown names are left out.

        Raises:
            OSError: from the disk.
        """
        existing = self._index.group.results()
        return {
            name: existing[name].read(start, stop).astype(np.float32, copy=False)
            for name in names
            if name in existing
        }

    def read_at(self, names: Iterable[str], frames: Numbers) -> dict[str, F32]:
        """The arrays ``names`` at these ascending frame numbers; unknown names are left out.

        Raises:
            OSError: from the disk.
        """
        existing = self._index.group.results()
        return {
            name: existing[name].read_at(frames).astype(np.float32, copy=False)
            for name in names
            if name in existing
        }

    def times_at(self, frames: Numbers) -> npt.NDArray[np.float64]:
        """Capture times of these ascending frame numbers in seconds since the stream's start; NaN for missing ones."""
        group = self._index.group
        if not group.has("time"):
            return np.full(len(frames), np.nan)
        column = group.column("time", "time", "float64", float("nan"))
        return column.read_at(frames).astype(np.float64, copy=False)

    def times(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Capture times of frames ``start`` .. ``stop`` in seconds since the stream's start; NaN for missing frames."""
        group = self._index.group
        if not group.has("time"):
            return np.full(max(0, stop - start), np.nan)
        return (
            group.column("time", "time", "float64", float("nan"))
            .read(start, stop)
            .astype(np.float64, copy=False)
        )


def check_values(name: str, dimension: str, start: int, values: npt.NDArray[Any]) -> None:
    """Refuse what can't be written into an array of results; raises ValueError."""
    if not _VALUE_NAME.fullmatch(name) or name in NAMES or name == FRAMES:
        raise ValueError(
            f"{name!r} can't name an array of results: use a-z, 0-9 and _, and no name that the archive itself uses."
        )
    if not _VALUE_NAME.fullmatch(dimension):
        raise ValueError(f"{dimension!r} can't name a dimension.")
    if values.ndim != 1 or values.dtype.name not in COLUMN_DTYPES or start < 0:
        raise ValueError(f"{name}: results must be 1-D {', '.join(COLUMN_DTYPES)}, at start >= 0.")
