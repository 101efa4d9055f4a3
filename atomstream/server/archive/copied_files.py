"""Which files of an archive are copied to the store, and in which order, so that readers always find a consistent
set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.metadata import RUNNING
from atomstream.server.archive.mirror import GROUP
from atomstream.server.archive.small_arrays import is_small
from atomstream.server.archive.thinning import KEPT
from atomstream.server.archive.timestamp_columns import NAMES
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES, ZarrGroup

ANALYSIS: Final = "analysis"
POSITION: Final = f"{ANALYSIS}/position"
"""Name of the position file: it states up to which record the other files of the folder are complete. A reader reads it
first, and the writer writes it last."""
_RECORDS: Final = f"{ANALYSIS}/results.log"
_CHECKPOINT: Final = f"{ANALYSIS}/checkpoint"
"""Name of the checkpoint: the state that follows from the records up to some number. It is never newer than the
records."""
_OF_A_RUN: Final = (RUNNING, f"{ANALYSIS}/state")
"""Files that exist only while an analysis runs. They are not copied: the server that opens the copy starts a new
analysis."""


class CopiedFiles:
    """The names of files below ``folder``, the folder of a stream whose Zarr group is ``group``."""

    def __init__(self, folder: Path, group: ZarrGroup) -> None:
        self._folder = folder
        self._group = group

    def documents(self) -> Iterator[str]:
        """The documents of the arrays, then that of the group."""
        for name in self._arrays():
            yield f"{self._group.folder.name}/{name}/{DOCUMENT}"
        yield GROUP

    def last_columns(self, *, results: bool) -> Iterator[str]:
        """The last two files of each column (without ``results`` only of those that follow from the chunks), and all
        files of small arrays."""
        group = self._group
        for name in self._arrays():
            shape = group.shape_of(name)
            if is_small(group.documents[name]):
                yield from self._in(f"{group.folder.name}/{name}/c")
            elif shape is not None and (results or name in NAMES):
                last = max(0, group.lengths[shape[0]] - 1) // COLUMN_CHUNK
                yield from (f"{group.folder.name}/{name}/c/{number}" for number in {max(0, last - 1), last})

    def all_columns(self) -> Iterator[str]:
        """All files of all columns."""
        for name in self._arrays():
            if name != FRAMES:
                yield from self._in(f"{self._group.folder.name}/{name}/c")

    def kept_frames(self) -> list[str]:
        """The column of the frames that are left, and its documents."""
        kept = f"{self._group.folder.name}/{KEPT}"
        return [*self._in(f"{kept}/c"), f"{kept}/{DOCUMENT}", GROUP]

    def results(self) -> Iterator[str]:
        """The files of the analysis, except those of a running one; each file after those that it refers to."""
        for name in (*reversed(in_order(self._in(ANALYSIS))), POSITION):
            if name not in _OF_A_RUN and ".damaged-" not in name:
                yield name

    def _arrays(self) -> list[str]:
        """All arrays but that of the frames that are left, which only the server that thins the stream copies."""
        return [name for name in tuple(self._group.documents) if name != KEPT]

    def _in(self, name: str) -> list[str]:
        """The files directly in a folder, by their names in the stream's."""
        try:
            found = os.scandir(self._folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        with found:
            return sorted(f"{name}/{entry.name}" for entry in found if entry.is_file(follow_symlinks=False))


def in_order(names: Iterable[str]) -> list[str]:
    """The files of an analysis except the position, each one before those that may not be older than it."""
    first = [_CHECKPOINT, _RECORDS]
    others = sorted(set(names) - {*first, POSITION})
    return [*first, *others]
