"""Folders of dashcams: a new one for each, and the removal of those that a killed recorder has left."""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from atomstream.errors import ConfigError
from atomstream.system.files import LOCAL
from atomstream.system.own_files import FILE_MODE, is_own_folder, prepare_for_library

LOCK: Final = "lock"


class DashcamFolders:
    """The folders of one process below ``root``. Their locks show other processes that they are in use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[Path, BaseFileLock] = {}

    def make(self) -> Path:
        """Make an empty folder.

        Raises:
            ConfigError: the disk does not allow it.
        """
        folder = self._root / secrets.token_hex(8)
        lock = _lock_of(folder)
        try:
            LOCAL.make_folder(folder)
            lock.acquire(timeout=0)
        except OSError as error:
            raise ConfigError(
                f"The folder of the dashcam, {self._root}, can't be used: {error.strerror or error}. "
                "Choose another --spool-dir, or --before 0."
            ) from error
        self._locks[folder] = lock
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a folder of this process with everything in it."""
        lock = self._locks.pop(folder, None)
        if lock is not None:
            lock.release(force=True)
        shutil.rmtree(folder, ignore_errors=True)

    def remove_abandoned(self) -> None:
        """Remove the folders whose process has ended without removing them."""
        with suppress(OSError):
            for folder in list(self._root.iterdir()):
                if folder not in self._locks and is_own_folder(folder):
                    self._remove_if_free(folder)

    def _remove_if_free(self, folder: Path) -> None:
        lock = _lock_of(folder)
        try:
            prepare_for_library(folder / LOCK)
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return
        lock.release(force=True)
        shutil.rmtree(folder, ignore_errors=True)


def _lock_of(folder: Path) -> BaseFileLock:
    return FileLock(folder / LOCK, thread_local=False, mode=FILE_MODE)
