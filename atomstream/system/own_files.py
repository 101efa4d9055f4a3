"""Files and folders that only this user may read, and opening them without following a link.

The frames of a spool or of an archive are private: files have the mode 0600 and folders 0700. On Windows, Python
gives a folder of mode 0700 an access list with the user and the administrators only, and its files inherit it.

Another program, or an archive from another computer, may have put a link, a pipe or a device under a name that
atomstream uses. Such a file is never opened: reading it could wait for ever, and writing would change a file
elsewhere. All errors are OSErrors, so callers handle them like those of a disk.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

OPEN_FLAGS: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)

# O_NONBLOCK: opening a pipe returns at once instead of waiting for its other end. It has no effect on files.
_PLAIN: Final = OPEN_FLAGS | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

LONGEST: Final = 1 << 30
"""Longest file that is read as a whole, unless a caller states another length."""
DOCUMENT_BYTES: Final = 16 << 20
"""Longest description of a stream or of a Zarr group; with all that a stream can have they have about 1 MiB."""
_LINK_ERRNOS: Final = frozenset({errno.ELOOP, errno.EMLINK})
"""Error numbers of O_NOFOLLOW for a link; some BSDs use EMLINK."""


def open_plain(path: Path | str, flags: int) -> int:
    """A descriptor of an existing regular file. ``flags`` are O_RDONLY, O_WRONLY or O_RDWR.

    Raises:
        OSError: it is a link, a folder, a pipe or a device (ELOOP), or the system could not open it.
    """
    return _open_checked(path, flags)[0]


def _open_checked(path: Path | str, flags: int) -> tuple[int, int]:
    """:func:`open_plain`, and the number of names of the file."""
    if sys.platform == "win32" and is_link(path):  # Windows has no O_NOFOLLOW
        raise _refused(path, "a link")
    try:
        fd = os.open(path, flags | _PLAIN)
    except OSError as error:
        if error.errno in _LINK_ERRNOS:
            raise _refused(path, "a link") from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _refused(path, "not a regular file")
    return fd, found.st_nlink


def open_for_writing(path: Path) -> int:
    """A descriptor for changing an existing regular file.

    A file with a second name (a hard link) is replaced by a copy before, so that the other name keeps its content.

    Raises:
        OSError: as :func:`open_plain`, or the copy could not be made.
    """
    fd, names = _open_checked(path, os.O_WRONLY)
    if names <= 1:
        return fd
    os.close(fd)
    _replace_by_copy(path)
    return open_plain(path, os.O_WRONLY)


def create_plain(path: Path) -> int:
    """Create a file that did not exist and return a descriptor for writing; a link of that name is an error."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, FILE_MODE)


def open_file(path: Path, mode: Literal["rb", "xb", "x+b"], *, buffering: int = -1) -> BinaryIO:
    """Like ``open``, for regular files only; a new one ("xb", "x+b") is private."""
    return open(path, mode, buffering=buffering, opener=open_plain if mode == "rb" else _create)


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | OPEN_FLAGS, FILE_MODE)


def read_plain(path: Path, most: int = LONGEST) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: as :func:`open_plain`, with the same number (ELOOP) if the file is longer. One with holes may state any
            length, and reading it would need as much memory.
    """
    with open_file(path, "rb", buffering=0) as file:
        return read_bounded(file, path, most)


def read_bounded(file: BinaryIO | io.FileIO, path: Path, most: int = LONGEST) -> bytes:
    """The rest of an open file; raises OSError as :func:`read_plain`."""
    if os.fstat(file.fileno()).st_size > most:
        raise _refused(path, f"longer than {most} bytes")
    return file.read()


def is_link(path: Path | str) -> bool:
    """Whether ``path`` is a symbolic link or (Windows) a junction; False if there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if sys.platform == "win32" and found.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        return True
    return stat.S_ISLNK(found.st_mode)


def is_plain_file(path: Path) -> bool:
    """Whether ``path`` is a regular file and no link to one."""
    return not is_link(path) and path.is_file()


def remove_unless_plain(path: Path) -> bool:
    """Remove a link, a pipe or a device of that name; True if there was one. The target of a link is not touched.

    Raises:
        OSError: it could not be removed.
    """
    if not os.path.lexists(path) or is_plain_file(path) or (path.is_dir() and not is_link(path)):
        return False
    os.unlink(path)
    return True


def is_own_folder(path: Path) -> bool:
    """Whether ``path`` is a folder of this user, and no link to one."""
    if is_link(path) or not path.is_dir():
        return False
    return sys.platform == "win32" or path.stat().st_uid == os.geteuid()


def prepare_for_library(path: Path) -> None:
    """Check the name of a file that a library will open or make by itself. A link or a pipe is removed.

    Raises:
        OSError: a folder has this name.
    """
    if path.is_dir() and not is_link(path):
        raise _refused(path, "not a regular file")
    remove_unless_plain(path)


def refuse_linked_folders(folder: Path, top: Path) -> None:
    """Check that no folder from below ``top`` to ``folder`` is a link. ``top`` itself may be: a user chose it.

    Raises:
        OSError: one of them is.
    """
    one, last = str(folder), str(top)  # not Path.parents: this runs for each upload
    while len(one) > len(last):
        if is_link(one):
            raise _refused(one, "a link")
        one = os.path.dirname(one)


def make_private(folder: Path, is_own: Callable[[str], bool] = lambda _name: True) -> None:
    """Close an existing folder to other users, if every entry in it is one of atomstream's (``is_own(name)``).

    Versions before 0.2 made folders that every user of the computer could read. A folder with other files is not
    changed: a user may have named a folder that is shared on purpose. A failure (a disk without modes) is ignored.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):
        found = folder.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid() and all(map(is_own, os.listdir(folder))):
            folder.chmod(FOLDER_MODE)


def exposure_of(folder: Path) -> str:
    """Why other users can change the files in ``folder``, as a clause to put after its name; empty if they can't."""
    if sys.platform == "win32":
        return ""
    found = folder.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return "belongs to another user, who can read and change its files"
    return "can be changed by other users of this computer" if found.st_mode & 0o022 else ""


def make_file_private(path: Path) -> None:
    """Close an existing regular file to other users; a missing one, or a disk without modes, is not an error."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        fd = open_plain(path, os.O_RDONLY)
        try:
            if os.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, FILE_MODE)
        finally:
            os.close(fd)


def _replace_by_copy(path: Path) -> None:
    copy = path.with_name(f"{path.name}.copy.tmp")
    with suppress(FileNotFoundError):
        os.unlink(copy)
    try:
        with open_file(path, "rb") as source, open_file(copy, "xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        os.replace(copy, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(copy)
        raise


def _refused(path: Path | str, what: str) -> OSError:
    return OSError(errno.ELOOP, f"it is {what}, which atomstream does not open", str(path))
