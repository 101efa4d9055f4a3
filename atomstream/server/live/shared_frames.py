"""Decoded frames in shared memory, from the upload to the analysis in a worker process.

The ingest decodes each shard to check it. These frames are written to a file in ``/dev/shm`` (or in the folder for
temporary files where there is none), and a worker maps that file instead of decoding the shard again. Disk space is
allocated when the file is made and never while frames are written, so a full disk is an error at one place.

One block belongs to one upload at a time. :class:`UploadTap` owns it while the upload is decoded; the analysis
receives it only if every frame was written; its last owner returns it with :meth:`SharedFrames.release`.
Without a block the worker decodes the stored shard, which costs only time.
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
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import FILE_MODE, is_own_folder, is_plain_file, open_file

log = get_logger("atomstream.server")
Observe: TypeAlias = Callable[[int, int, Frame], None]
PREFIX: Final = "atomstream-frames-"
LOCK: Final = "alive.lock"
_MEMORY: Final = Path("/dev/shm")
_ZEROS: Final = bytes(1 << 20)


class FramesFolder:
    """A new folder in shared memory, or among the temporary files where the system has none.

    A server that is killed leaves its folder behind, which in ``/dev/shm`` takes memory for ever. So each folder has a
    lock file, which its server holds and the operating system releases; the next server removes folders without a
    holder.

    Raises:
        OSError: there is no space for a folder.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or (_MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        remove_leftovers(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove the folder and the files in it."""
        self._lock.release()
        _remove(self.path)


def remove_leftovers(parent: Path) -> None:
    """Remove folders in ``parent`` whose servers have ended. Folders in use or of other users stay."""
    for folder in parent.glob(f"{PREFIX}*"):
        # No lock file: being made, or of another program. In a folder that all users may write to, others may create
        # links.
        if not is_own_folder(folder) or not is_plain_file(folder / LOCK):
            continue
        lock = _lock_of(folder)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            lock.release()
            _remove(folder)


def _lock_of(folder: Path) -> FileLock:
    # It is acquired in one thread and released in another.
    return FileLock(folder / LOCK, thread_local=False, mode=FILE_MODE)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


class SharedBlock:
    """A file with space for the frames of one chunk. Workers map ``path``."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path = path
        self.nbytes = nbytes
        self._file = open_file(path, "x+b", buffering=0)
        try:
            _allocate(self._file.fileno(), nbytes)
        except BaseException:
            self.close()
            raise

    def write(self, k: int, frame: Frame) -> None:
        """Write frame ``k`` of a chunk. One thread at a time."""
        self._file.seek(k * frame.nbytes)
        self._file.write(frame.data.cast("B"))

    def close(self) -> None:
        """Remove the file. Its memory is free when no worker maps it any more."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _allocate(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
        return
    for start in range(0, nbytes, len(_ZEROS)):
        os.write(descriptor, _ZEROS[: nbytes - start])


class SharedFrames:
    """Pool of the shared blocks of one server, at most ``max_bytes``. Used in the server's loop only.

    Blocks are made in a thread and used again. :meth:`acquire` never waits.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._free: list[SharedBlock] = []
        self._in_use: set[SharedBlock] = set()
        self._closed = False
        self._total = 0
        self._making: set[asyncio.Task[None]] = set()
        self._folder: FramesFolder | None = None
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        """Number of blocks that are not free."""
        return len(self._in_use)

    def acquire(self, nbytes: int) -> SharedBlock | None:
        """A block of at least ``nbytes``, or None; then a block is made for the next call, if memory permits."""
        if self._closed:
            return None
        for removed in [block for block in self._free if not block.path.exists()]:  # by another program
            self._free.remove(removed)
            self._discard(removed)
        fitting = [block for block in self._free if nbytes <= block.nbytes <= 2 * nbytes]
        if fitting:
            self._free.remove(fitting[-1])
            self._in_use.add(fitting[-1])
            return fitting[-1]
        self._make_room(nbytes)
        if self._total + nbytes <= self._max_bytes:
            self._total += nbytes
            task = asyncio.get_running_loop().create_task(self._make(nbytes))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        return None

    def release(self, block: SharedBlock) -> None:
        """Return a block. A second call for the same use has no effect, so no block is ever free twice."""
        if block in self._in_use:
            self._in_use.remove(block)
            self._free.append(block)

    def _make_room(self, nbytes: int) -> None:
        while self._free and self._total + nbytes > self._max_bytes:
            self._discard(self._free.pop(0))

    def _discard(self, block: SharedBlock) -> None:
        self._total -= block.nbytes
        block.close()

    async def _make(self, nbytes: int) -> None:
        try:
            self._free.append(await asyncio.to_thread(self._make_block, nbytes))
        except FileNotFoundError:  # the folder was removed at this moment: the next call makes another
            self._total -= nbytes
        except OSError:  # no space: from now on the workers decode
            self._total -= nbytes
            self._max_bytes = self._total

    def _make_block(self, nbytes: int) -> SharedBlock:
        with self._lock:
            if self._folder is not None and not self._folder.path.exists():
                self._folder.remove()  # releases its lock
                self._folder = None
            if self._folder is None:
                self._folder = FramesFolder()
            return SharedBlock(self._folder.path / os.urandom(8).hex(), nbytes)

    async def close(self) -> None:
        """Remove all blocks, those in use too: an upload may have been cancelled. No worker runs any more."""
        if self._making:
            await asyncio.wait(tuple(self._making))
        self._closed = True
        for block in (*self._free, *self._in_use):
            block.close()
        self._free.clear()
        self._in_use.clear()
        if self._folder is not None:
            self._folder.remove()


class UploadTap:
    """Copies the frames of one upload into a shared block while the ingest decodes them.

    The tap owns its block until :meth:`take`, which returns it only if all ``n_frames`` frames were written: an upload
    that repeats a stored chunk is not decoded, and its block holds frames of some other chunk. :meth:`close` returns a
    block that was not taken.
    """

    def __init__(self, frames: SharedFrames, block: SharedBlock | None, n_frames: int) -> None:
        self._frames = frames
        self._block = block
        self._n_frames = n_frames
        self._written = 0
        self._lock = threading.Lock()  # a decoder thread may still run after its request was cancelled
        self.observe: Observe | None = self._write if block is not None else None

    def _write(self, _index: int, k: int, frame: Frame) -> None:
        with self._lock:
            if self._block is None:
                return
            if k == 0:  # the first try, or another one after an error
                self._written = 0
            if k != self._written:
                return
            try:
                self._block.write(k, frame)
            except (OSError, ValueError):
                log.warning(
                    "decoded frames could not be shared; the analysis decodes them again", exc_info=True
                )
            else:
                self._written += 1

    def pop(self) -> SharedBlock | None:
        """Transfer the block to the caller, who releases it; None if there is none or if it is not complete."""
        with self._lock:
            if self._block is None or self._written != self._n_frames:
                return None
            block, self._block = self._block, None
            return block

    def close(self) -> None:
        """Release the block if the tap still owns it."""
        with self._lock:
            if self._block is not None:
                self._frames.release(self._block)
                self._block = None
