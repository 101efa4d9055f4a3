"""The few things that the spool does to a disk, in one place, each with its twin on every system.

Everything durable goes through a :class:`FileSystem`: so a test can make the n-th of them fail, or keep a log and
play a power cut. Its methods raise OSError; :func:`disk_errors` turns that into the sentence for people.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from atomstream.records import Piece
from atomstream.system.direct_io import DirectWriter
from atomstream.system.scheduling import STEP_BYTES, CoopYield, cut

TEMP_SUFFIX: Final = ".tmp"

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})

_OPEN_FLAGS: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)

_NOTABLE: Final = 256 << 10
"""Smaller files have their blocks found as they are written."""

_RENAME_TRIES: Final = 20

_RENAME_PAUSE_S: Final = 0.01


class FileSystem:
    """The real disk. All paths are files or folders of the spool; descriptors are the caller's to close."""

    def __init__(self) -> None:
        self._direct = DirectWriter()

    def create(self, path: Path) -> int:
        """A descriptor for writing a new, empty file; a leftover of the same name goes first.

        Always a fresh inode: after a failed fsync nothing is known of the old one's pages.
        """
        with suppress(FileNotFoundError):
            os.unlink(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, 0o666)

    def open_at(self, path: Path, position: int) -> int:
        """A descriptor for writing an existing file from ``position`` on; what stood there is cut off."""
        fd = os.open(path, os.O_WRONLY | _OPEN_FLAGS)
        try:
            self.cut(fd, position)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def reopen(self, path: Path) -> int:
        """A descriptor for writing over an existing file from its start; what is not written over stays."""
        return os.open(path, os.O_WRONLY | _OPEN_FLAGS)

    def cut(self, fd: int, position: int) -> None:
        """Cut the file off at ``position`` and write on from there."""
        os.ftruncate(fd, position)
        os.lseek(fd, position, os.SEEK_SET)

    def reserve(self, fd: int, nbytes: int) -> None:
        """Ask for a new file's room at once, where the system can: a full disk says so before anything is written.

        A few searches for blocks instead of one a write: a fifth of a record's processor time [measured, ext4].
        """
        if nbytes < _NOTABLE or sys.platform == "win32" or not hasattr(os, "posix_fallocate"):
            return
        try:
            turns = CoopYield()
            for at in range(0, nbytes, STEP_BYTES):  # in memory it means to clear as many
                turns.offer()
                os.posix_fallocate(fd, at, min(STEP_BYTES, nbytes - at))
        except OSError as error:
            if error.errno in _FULL or error.errno == errno.EIO:
                raise  # every other reason is the file system's own, and writing tells

    def write(self, fd: int, pieces: Sequence[Piece]) -> None:
        """Write all pieces, one after the other, without joining them; large ones past the page cache."""
        rest, turns = _after(pieces, self._direct.write(fd, pieces)), CoopYield()
        for batch in _batches(rest):
            turns.offer()
            _write_rest(fd, batch)

    def sync(self, fd: int) -> None:
        """Return once the file's bytes and length would survive a power cut."""
        if sys.platform == "darwin":  # there fsync stops at the drive's cache
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        elif sys.platform == "win32":
            os.fsync(fd)
        else:
            os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor; network file systems report a failed write here."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename over whatever is there, atomically.

        On Windows that fails while somebody (a reader, a virus scanner) holds the target: tried again.
        """
        for _ in range(_RENAME_TRIES if sys.platform == "win32" else 0):
            with suppress(PermissionError):
                os.replace(source, target)
                return
            time.sleep(_RENAME_PAUSE_S)
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is not there is no error."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def overwrite(self, path: Path, data: bytes) -> None:
        """Write ``data`` over the start of a small file that need not survive a power cut."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | _OPEN_FLAGS, 0o666)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def make_folder(self, path: Path) -> None:
        """Make a folder and its parents, each so that it survives a power cut."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        self.make_one_folder(path)
        self.sync_folder(path.parent)

    def make_one_folder(self, path: Path) -> None:
        """Make a folder in one that is there; one that exists is no error."""
        with suppress(FileExistsError):
            os.mkdir(path)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder if it is empty, else leave it: what is in it is not ours."""
        with suppress(OSError):
            os.rmdir(path)

    def sync_folder(self, path: Path) -> None:
        """Return once the folder's entries (creations, renames) would survive a power cut.

        Windows has no such call: NTFS journals its folders. Nor have some network file systems.
        """
        if sys.platform == "win32":
            return
        fd = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(fd)

    def open_read(self, path: Path) -> io.FileIO:
        """An unbuffered file for reading."""
        return io.FileIO(path, "rb")

    def free_bytes(self, path: Path) -> int:
        """Bytes that this user may still write to the disk under ``path``."""
        return shutil.disk_usage(path).free


def _after(pieces: Sequence[Piece], count: int) -> Iterator[memoryview]:
    """The pieces without their first ``count`` bytes."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        skipped = min(count, view.nbytes)
        count -= skipped
        if skipped < view.nbytes:
            yield view[skipped:]


def _batches(views: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """The views, cut and gathered into as much as is written at once."""
    most = 1 if sys.platform == "win32" else os.sysconf("SC_IOV_MAX")
    batch, nbytes = list[memoryview](), 0
    for part in (memoryview(part) for view in views for part in cut(view, STEP_BYTES)):
        if len(batch) == most or nbytes + part.nbytes > STEP_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(part)
        nbytes += part.nbytes
    if batch:
        yield batch


def _write_rest(fd: int, views: list[memoryview]) -> None:
    # A write may be short (a signal, a nearly full disk): go on where it stopped, until it says why.
    while views:
        written = os.write(fd, views[0]) if sys.platform == "win32" else os.writev(fd, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if views and written:
            views[0] = views[0][written:]


def write_whole(disk: FileSystem, target: Path, pieces: Sequence[Piece], *, over: Path | None = None) -> None:
    """Put a file in place whole or not at all, so that it survives a power cut once this returns.

    Written beside it under a temporary name, or over the file ``over`` of such a name, synced, renamed, the folder
    synced. On an error before the rename ``target`` is what it was, and ``over`` is gone.

    Raises:
        OSError: what the disk said.
    """
    temporary = over or temporary_of(target)
    write = _write_new if over is None else _write_over
    try:
        write(disk, temporary, pieces)
        disk.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            disk.unlink(temporary)
        raise
    disk.sync_folder(target.parent)


def temporary_of(target: Path) -> Path:
    """Where a file lies until it is whole."""
    return target.with_name(target.name + TEMP_SUFFIX)


def _write_new(disk: FileSystem, path: Path, pieces: Sequence[Piece]) -> None:
    fd = disk.create(path)
    try:
        disk.reserve(fd, _nbytes(pieces))
        disk.write(fd, pieces)
        disk.sync(fd)
    finally:
        disk.close(fd)


def _write_over(disk: FileSystem, path: Path, pieces: Sequence[Piece]) -> None:
    fd = disk.reopen(path)
    try:
        disk.write(fd, pieces)
        disk.cut(fd, _nbytes(pieces))
        disk.sync(fd)
    finally:
        disk.close(fd)


def _nbytes(pieces: Sequence[Piece]) -> int:
    return sum(memoryview(piece).nbytes for piece in pieces)


# Files that survive a crash: written aside, synced, then renamed into place.
#
# Parts (files not yet in place) lie in one folder of their own, on the file system of their targets, under
# names that nothing else has: so readers of a Zarr group never list one, and a crash's leftovers can be
# removed without touching what is not ours.

_PART = re.compile(r"[0-9a-f]{32}\.part")

_REPLACE_PATIENCE_S = 5.0

_WINDOWS = os.name == "nt"


def fresh_part(parts: Path) -> Path:
    """A file name in the folder ``parts`` (made if need be) that nobody else uses."""
    if not parts.is_dir():
        parts.mkdir(parents=True, exist_ok=True)
    return parts / f"{os.urandom(16).hex()}.part"


def remove_parts(parts: Path) -> None:
    """Remove what a crash left in ``parts``; files that are not parts stay."""
    if not parts.is_dir():
        return
    for path in parts.iterdir():
        if _PART.fullmatch(path.name):
            with contextlib.suppress(OSError):  # it is only litter
                path.unlink()


def write_atomic(parts: Path, target: Path, data: bytes) -> None:
    """Put ``data`` at ``target``, whole or not at all, for readers and across a power cut.

    The content is synced before the rename; the folder is not (:func:`sync_folder`), so a power cut may
    bring back the content before.

    Raises:
        OSError: the disk's; ``target`` is then as it was.
    """
    part = fresh_part(parts)
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename over ``target``. On Windows that fails while anybody has it open: then it is tried again."""
    give_up = time.monotonic() + _REPLACE_PATIENCE_S
    wait_s = 0.001
    while True:
        try:
            os.replace(source, target)
        except PermissionError:
            if not _WINDOWS or time.monotonic() > give_up:
                raise
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 0.1)
        else:
            return


def sync_file(path: Path) -> None:
    """Have the content of ``path`` on the disk (Windows syncs only what is open for writing)."""
    _sync(path, os.O_RDWR)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on the disk. Windows has no such call; NTFS journals its names itself."""
    if _WINDOWS:
        return
    _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folders(deepest: Path, top: Path) -> None:
    """:func:`sync_folder` from ``deepest`` up to ``top``, which must be one of its parents or itself."""
    for folder in (deepest, *deepest.parents):
        sync_folder(folder)
        if folder == top:
            return


# Small files that only the server's own user may read: keys and the signing secret.


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` at once and durably, readable by its owner alone (mode 0600).

    On Windows the mode has no effect; there the user's own folders are closed to others already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_or_make_secret(path: Path, nbytes: int = 32) -> bytes:
    """The secret kept at ``path``; a fresh random one where there is none."""
    try:
        kept = path.read_bytes()
    except FileNotFoundError:
        kept = b""
    if len(kept) < nbytes:
        kept = secrets.token_bytes(nbytes)
        write_private(path, kept)
    return kept
