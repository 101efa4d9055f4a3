"""The file layer: every durable write of the package goes through a :class:`FileSystem`.

The spool, the archive, the logs and the key files share it, so the differences between Linux, macOS and Windows are
in one place, and a test can pass a subclass: one that makes the n-th call fail, or one that records all calls so that
a power cut can be simulated. All methods raise OSError; the callers turn it into a message for the user.

Files and folders are private, and links are not followed (:mod:`atomstream.system.own_files`).
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atomstream.system.own_files import (
    FOLDER_MODE,
    OPEN_FLAGS,
    create_plain,
    is_link,
    is_plain_file,
    open_for_writing,
    open_plain,
    read_plain,
    refuse_linked_folders,
)
from atomstream.system.scheduling import STEP_BYTES, CoopYield, split_piece

if TYPE_CHECKING:  # it imports numpy, which the command line does not need
    from atomstream.records import Piece

TEMP_SUFFIX: Final = ".tmp"

DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

RENAME_PATIENCE_S: Final = 5.0

_WINDOWS: Final[bool] = os.name == "nt"

_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})

_RESERVE_FROM: Final = 256 << 10
"""Least size, in bytes, of files whose blocks are allocated in advance."""

_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.1


class FileSystem:
    """The local file system. Stateless; any thread may call any method.

    The caller closes the descriptors that it gets. Errors are the operating system's OSErrors.
    """

    # -- one system call each: what a test's subclass overrides --------------------------------------------

    def create(self, path: Path) -> int:
        """Create an empty file and return a descriptor for writing; a leftover of the same name is removed first.

        Always a new inode: after a failed fsync the state of the old one's pages is unknown.
        """
        with suppress(FileNotFoundError):
            os.unlink(path)
        return create_plain(path)

    def open_truncated(self, path: Path, position: int) -> int:
        """A descriptor for writing an existing file from ``position`` on; bytes from there on are removed."""
        fd = open_for_writing(path)
        try:
            self.truncate(fd, position)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_existing(self, path: Path) -> int:
        """A descriptor for writing over an existing file from its start; bytes not written over stay."""
        return open_for_writing(path)

    def open_read(self, path: Path) -> io.FileIO:
        """An unbuffered file for reading."""
        return io.FileIO(path, "rb", opener=open_plain)

    def truncate(self, fd: int, position: int) -> None:
        """Cut the file off at ``position``; the next :meth:`write` continues there."""
        os.ftruncate(fd, position)
        os.lseek(fd, position, os.SEEK_SET)

    def reserve(self, fd: int, nbytes: int) -> None:
        """Allocate a new file's blocks at once, where the system can: a full disk is noticed before any write.

        Measured on ext4: one search for blocks instead of one a write saves a fifth of a record's processor time.
        """
        if nbytes < _RESERVE_FROM or sys.platform == "win32" or not hasattr(os, "posix_fallocate"):
            return
        try:
            coop = CoopYield()
            for at in range(0, nbytes, STEP_BYTES):  # takes time on a tmpfs, where each page is cleared
                coop.yield_if_due()
                os.posix_fallocate(fd, at, min(STEP_BYTES, nbytes - at))
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS or error.errno == errno.EIO:
                raise  # any other error means: not supported here; the write itself will show real problems

    def write(self, fd: int, pieces: Sequence[Piece]) -> None:
        """Write all pieces at the file's position, without joining them."""
        coop = CoopYield()
        for batch in _batches(pieces):
            coop.yield_if_due()
            _write_all(fd, batch)

    def write_at(self, fd: int, position: int, data: bytes) -> None:
        """Write ``data`` at ``position``. Does not use the file's own position."""
        view = memoryview(data)
        while view:  # a disk that fills up writes a part, and refuses the next one
            if sys.platform == "win32":
                os.lseek(fd, position, os.SEEK_SET)
                written = os.write(fd, view)
            else:
                written = os.pwrite(fd, view, position)
            position += written
            view = view[written:]

    def sync(self, fd: int) -> None:
        """Return once the file's bytes and length would survive a power cut."""
        if sys.platform == "darwin":  # there fsync only reaches the drive's cache
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
        """Replace ``target`` atomically.

        Windows refuses that while another process (a reader, a virus scanner) has the target open: there it is
        tried again for up to ``RENAME_PATIENCE_S``.
        """
        deadline = time.monotonic() + RENAME_PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                os.replace(source, target)
            except PermissionError:
                if not _WINDOWS or time.monotonic() > deadline:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return

    def unlink(self, path: Path) -> None:
        """Remove a file; a missing one is not an error."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def overwrite(self, path: Path, data: bytes) -> None:
        """Write ``data`` over the start of a small file that need not survive a power cut.

        A link or a pipe of that name is replaced.
        """
        try:
            fd = open_for_writing(path)
        except FileNotFoundError:
            fd = create_plain(path)
        except OSError:
            if is_plain_file(path):
                raise
            os.unlink(path)
            fd = create_plain(path)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def make_one_folder(self, path: Path) -> None:
        """Make a folder whose parent exists; an existing folder is not an error."""
        with suppress(FileExistsError):
            os.mkdir(path, FOLDER_MODE)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder; any other one stays, with the files in it."""
        with suppress(OSError):
            os.rmdir(path)

    def sync_folder(self, path: Path) -> None:
        """Return once the folder's entries (creations, renames) would survive a power cut.

        Windows has no such call: NTFS journals its folders. Some network file systems refuse it; that is ignored.
        """
        if _WINDOWS:
            return
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        """Bytes that this user may still write to the disk under ``path``."""
        return shutil.disk_usage(path).free

    # -- made of the calls above ---------------------------------------------------------------------------

    def make_folder(self, path: Path, *, durable: bool = True, inside: Path | None = None) -> None:
        """Make a folder and its parents; with ``durable`` each of them survives a power cut.

        ``inside`` is one of its parents: a link in place of a folder below that one is refused.
        """
        if path.is_dir():
            if inside is not None:
                refuse_linked_folders(path, inside)
            return
        self.make_folder(path.parent, durable=durable, inside=inside)
        self.make_one_folder(path)
        if durable:
            self.sync_folder(path.parent)

    def sync_file(self, path: Path) -> None:
        """:meth:`sync` for a file by its path."""
        fd = self.open_existing(path)  # Windows syncs only what is open for writing
        try:
            self.sync(fd)
        finally:
            self.close(fd)

    def sync_folders(self, deepest: Path, top: Path) -> None:
        """:meth:`sync_folder` from ``deepest`` up to ``top``, which must be one of its parents or itself."""
        for folder in (deepest, *deepest.parents):
            self.sync_folder(folder)
            if folder == top:
                return

    def write_atomic(
        self,
        target: Path,
        pieces: Sequence[Piece],
        *,
        temporary: Path | None = None,
        over: Path | None = None,
        durable: bool = True,
    ) -> None:
        """Replace a file atomically; with ``durable`` the new content survives a power cut once this returns.

        The content goes to a new file ``temporary`` (by default :func:`temporary_path`), or over the existing file
        ``over``; that is synced and renamed, then the folder is synced. Without ``durable`` the folder is not
        synced: after a power cut the old content may be there again, but never half of the new one.

        Raises:
            OSError: up to the rename ``target`` is unchanged, and the temporary file is removed.
        """
        source = over or temporary or temporary_path(target)
        try:
            self._write_file(source, pieces, new=over is None)
            self.rename(source, target)
        except BaseException:
            with suppress(OSError):
                self.unlink(source)
            raise
        if durable:
            self.sync_folder(target.parent)

    def _write_file(self, path: Path, pieces: Sequence[Piece], *, new: bool) -> None:
        nbytes = sum(memoryview(piece).nbytes for piece in pieces)
        fd = self.create(path) if new else self.open_existing(path)
        try:
            if new:
                self.reserve(fd, nbytes)
            self.write(fd, pieces)
            if not new:
                self.truncate(fd, nbytes)
            self.sync(fd)
        finally:
            self.close(fd)


LOCAL: Final = FileSystem()
"""The default file system."""


def temporary_path(target: Path) -> Path:
    """The name of a file while it is written."""
    return target.with_name(target.name + TEMP_SUFFIX)


def _batches(pieces: Sequence[Piece]) -> Iterator[list[memoryview]]:
    """Views of the pieces, split and grouped into what one system call writes."""
    most = 1 if sys.platform == "win32" else os.sysconf("SC_IOV_MAX")
    batch, nbytes = list[memoryview](), 0
    views = (memoryview(piece).cast("B") for piece in pieces)
    for part in (memoryview(part) for view in views for part in split_piece(view, STEP_BYTES)):
        if len(batch) == most or nbytes + part.nbytes > STEP_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(part)
        nbytes += part.nbytes
    if batch:
        yield batch


def _write_all(fd: int, views: list[memoryview]) -> None:
    # A write may be short (a signal, a nearly full disk): continue where it stopped, until it raises.
    while views:
        written = os.write(fd, views[0]) if sys.platform == "win32" else os.writev(fd, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if views and written:
            views[0] = views[0][written:]


# Small files with secrets: API keys, sessions, the signing secret.


def write_private(path: Path, data: bytes, file_system: FileSystem = LOCAL) -> None:
    """Replace ``path`` atomically and durably; its folder is made where it is missing."""
    file_system.make_folder(path.parent)
    file_system.write_atomic(path, [data])


def load_or_make_secret(path: Path, nbytes: int = 32, file_system: FileSystem = LOCAL) -> bytes:
    """The secret stored at ``path``; a new random one where the file is missing or too short."""
    try:
        stored = read_plain(path)
    except OSError:
        if path.exists() and not is_link(path):  # the disk failed: the secret may be readable later
            raise
        stored = b""
    if len(stored) < nbytes:
        stored = os.urandom(nbytes)
        write_private(path, stored, file_system)
    return stored
