"""Frames that the ingest has decoded, on their way to the analysis without being decoded again.

A file in ``/dev/shm`` where there is one, else in the folder for temporary files; the server writes, workers map
it. Its pages are claimed when it is made, never while frames are written: a full disk is then an error at one
place, not a signal at any. Borrowing never waits; whoever gets none decodes the stored shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from filelock import FileLock, Timeout

from atomstream.server.archive.shard_file import Frame

# The folder of the frames that a server shares with its workers, and what a killed server left of its own.
#
# A server that dies by SIGKILL leaves its folder, and in ``/dev/shm`` that is memory until the machine restarts. Each
# folder has a lock that its server holds and death releases: the next server removes those that nobody holds.

PREFIX: Final = "atomstream-frames-"

LOCK: Final = "alive.lock"

_MEMORY: Final = Path("/dev/shm")


class FramesFolder:
    """A folder of its own in memory where the system has such a place, else among the temporary files.

    Raises:
        OSError: there is no room for one.
    """

    def __init__(self, place: Path | None = None) -> None:
        place = place or (_MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        remove_leftovers(place)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove it with what is in it."""
        self._lock.release()
        _remove(self.path)


def remove_leftovers(place: Path) -> None:
    """Remove the folders in ``place`` whose servers are dead; others, and what is not ours to remove, stay."""
    for folder in place.glob(f"{PREFIX}*"):
        if not (folder / LOCK).exists():  # one in the making, or another program's
            continue
        lock = _lock_of(folder)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            lock.release()
            _remove(folder)


def _lock_of(folder: Path) -> FileLock:
    # Made in a thread and released in another one.
    return FileLock(folder / LOCK, thread_local=False)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


Observe: TypeAlias = Callable[[int, int, Frame], None]

_ZEROS: Final = bytes(1 << 20)


class SharedBlock:
    """Room for one chunk's decoded frames; ``path`` is what a worker maps."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path = path
        self.nbytes = nbytes
        self._file = path.open("x+b", buffering=0)
        try:
            _claim(self._file.fileno(), nbytes)
        except BaseException:
            self.close()
            raise

    def write(self, _index: int, k: int, frame: Frame) -> None:
        """Put frame ``k`` of a chunk here; for the ingest, which decodes one after the other."""
        self._file.seek(k * frame.nbytes)
        self._file.write(frame.data.cast("B"))

    def close(self) -> None:
        """Give the memory back, once no worker maps it any more."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _claim(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
        return
    for start in range(0, nbytes, len(_ZEROS)):
        os.write(descriptor, _ZEROS[: nbytes - start])


class SharedFrames:
    """All slots of a server, ``max_bytes`` at most. To be used in its loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._free: list[SharedBlock] = []
        self._lent: set[SharedBlock] = set()
        self._closed = False
        self._total = 0
        self._making: set[asyncio.Task[None]] = set()
        self._folder: FramesFolder | None = None
        self._lock = threading.Lock()

    def borrow(self, nbytes: int) -> SharedBlock | None:
        """Room for ``nbytes``, or None for now; one is then made for the next time, if there may be more."""
        for gone in [slot for slot in self._free if not slot.path.exists()]:  # who cleaned up there?
            self._free.remove(gone)
            self._discard(gone)
        fitting = [slot for slot in self._free if nbytes <= slot.nbytes <= 2 * nbytes]
        if fitting:
            self._free.remove(fitting[-1])
            self._lent.add(fitting[-1])
            return fitting[-1]
        self._make_room(nbytes)
        if self._total + nbytes <= self._max_bytes:
            self._total += nbytes
            task = asyncio.get_running_loop().create_task(self._make(nbytes))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        return None

    def _make_room(self, nbytes: int) -> None:
        while self._free and self._total + nbytes > self._max_bytes:
            self._discard(self._free.pop(0))

    def _discard(self, slot: SharedBlock) -> None:
        self._total -= slot.nbytes
        slot.close()

    async def _make(self, nbytes: int) -> None:
        try:
            self._free.append(await asyncio.to_thread(self._make_slot, nbytes))
        except FileNotFoundError:  # cleaned by somebody in this moment: the next one makes the folder anew
            self._total -= nbytes
        except OSError:  # no room there: then the workers decode, which costs time alone
            self._total -= nbytes
            self._max_bytes = self._total

    def _make_slot(self, nbytes: int) -> SharedBlock:
        with self._lock:
            if self._folder is not None and not self._folder.path.exists():
                self._folder.remove()  # its lock
                self._folder = None
            if self._folder is None:
                self._folder = FramesFolder()
            return SharedBlock(self._folder.path / os.urandom(8).hex(), nbytes)

    def give_back(self, slot: SharedBlock) -> None:
        """The frames in it were analysed, or will not be."""
        self._lent.discard(slot)
        if self._closed:
            slot.close()
        else:
            self._free.append(slot)

    async def close(self) -> None:
        """Give everything back; no worker runs any more."""
        if self._making:
            await asyncio.wait(tuple(self._making))
        self._closed = True
        for slot in (*self._free, *self._lent):  # an upload cut short by the stop gives nothing back
            slot.close()
        self._free.clear()
        self._lent.clear()
        if self._folder is not None:
            self._folder.remove()
