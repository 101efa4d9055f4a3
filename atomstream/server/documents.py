"""Small documents by name, such as the hashes of API keys: files of the data folder, or rows that servers share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Protocol, TypeAlias

from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.own_files import read_plain

Revision: TypeAlias = Callable[[bytes | None], bytes | None]
"""A function that gets the content of a document (None: there is no document) and returns the new content; equal
content or None changes nothing."""


class Documents(Protocol):
    """Reads and replaces whole documents of up to some 100 kB. All methods block, and may be called from any thread.

    What was written is durable, and is seen by all who share the documents. Methods raise OSError for an error of the
    disk, and CatalogueUnavailableError if a database can't be reached; then nothing was changed.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes may change the documents at any time."""

    def place(self, name: str) -> str:
        """Where a document is, for messages: the path of a file, or the table."""

    def read(self, name: str) -> bytes | None:
        """The content of a document; None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a document."""

    def change(self, name: str, revise: Revision) -> bytes | None:
        """Replace a document by ``revise(content)``, and return what it contains then.

        Nobody else changes it meanwhile: of the servers of a cluster, or of the threads of one server.
        """

    def mark(self, name: str) -> Hashable:
        """Differs from an earlier one if the document was changed since."""


class FolderDocuments:
    """Files in a data folder, readable by the server's user alone. One server, and commands, write them."""

    def __init__(self, data_dir: Path, file_system: FileSystem = LOCAL) -> None:
        self._folder = data_dir
        self._file_system = file_system
        self._lock = threading.Lock()

    @property
    def is_shared(self) -> bool:
        """False: only commands change the files, and :meth:`mark` takes microseconds."""
        return False

    def place(self, name: str) -> str:
        """The path of the file."""
        return str(self._folder / name)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return read_plain(self._folder / name)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace a file atomically and durably."""
        write_private(self._folder / name, content, self._file_system)

    def change(self, name: str, revise: Revision) -> bytes | None:
        """Replace a file by ``revise(content)``; threads of this object do it one after another."""
        with self._lock:
            before = self.read(name)
            after = revise(before)
            if after is None or after == before:
                return before
            self.write(name, after)
            return after

    def mark(self, name: str) -> Hashable:
        """Time, size and number of the file; None if it can't be found."""
        try:
            found = os.stat(self._folder / name, follow_symlinks=False)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def documents_in(place: Path | Documents, file_system: FileSystem = LOCAL) -> Documents:
    """``place``, or the documents of that data folder."""
    return FolderDocuments(place, file_system) if isinstance(place, Path) else place
