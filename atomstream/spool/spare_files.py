"""Files of delivered records, kept for the next ones to be written over them.

Room that a file has already need not be found, cleared and freed again: a third of a record's processor time in memory,
half of the time on a disk, whose journal then has nothing to say either [measured, tmpfs and ext4]. Safe, for a
file changes only after the journal says, durably, that its chunk is stored: whatever a crash leaves under the old
name is removed at the next opening, as is what lies under a temporary one. Spare files stay charged to the stream,
so the spool's bounds hold with them; they are kept only where at least half of the room is free, and given up
before a record of this process is refused. Not on Windows, where a virus scanner may hold any file for a while.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from atomstream.spool.bounds import Account
from atomstream.spool.disk import Disk
from atomstream.spool.names import spare_name

MOST: Final = 2
"""Two records may be delivered before the next one is written."""


@dataclass(frozen=True, slots=True)
class SpareFile:
    """A file that nobody reads any more, and its size."""

    path: Path
    nbytes: int


class SpareFiles:
    """A stream's spare files; all methods may be called from any thread."""

    def __init__(self, disk: Disk, folder: Path, account: Account) -> None:
        self._disk = disk
        self._folder = folder
        self._account = account
        self._numbers = count()
        self._free: deque[SpareFile] = deque()

    def keep(self, path: Path) -> None:
        """Take over the file of a record that is stored; it stays where it is if that can't be done."""
        if sys.platform == "win32" or len(self._free) >= MOST:
            return
        spare = self._folder / spare_name(next(self._numbers))
        try:
            nbytes = path.stat().st_size
            self._disk.rename(path, spare)
        except OSError:  # it is gone, or on Windows somebody reads it
            self.discard(spare)
        else:
            self._free.append(SpareFile(spare, nbytes))

    def take(self) -> SpareFile | None:
        """A file to write over, the caller's from now on; None where there is none."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def discard(self, path: Path) -> None:
        """Remove a file and credit its bytes, if it is there. What the disk refuses goes at the next opening."""
        with suppress(OSError):
            nbytes = path.stat().st_size
            self._disk.unlink(path)
            self._account.credit(nbytes)

    def clear(self) -> None:
        """Remove all that is kept."""
        while (spare := self.take()) is not None:
            self.discard(spare.path)
