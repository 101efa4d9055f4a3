"""Files that survive a crash: written aside, synced, then renamed into place.

Parts (files not yet in place) lie in one folder of their own, on the file system of their targets, under
names that nothing else has: so readers of a Zarr group never list one, and a crash's leftovers can be
removed without touching what is not ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

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
