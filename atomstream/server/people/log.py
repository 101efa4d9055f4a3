"""The file ``people.jsonl``: an append-only log, one JSON object a line, of the changes and of what people did.

It is the only place where people and keys are stored: the catalogue can be removed and built again at any time, and
they must not be lost then. Commands append to it while a server runs; a lock orders the writers. The server notices a
new line by the length of the file.

Each line has the hash of the line before. If a hash does not match, the file was changed or is damaged, and no key or
person in it is accepted: if a line was removed, a revoked key could be valid again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
from filelock import FileLock, Timeout

from atomstream.errors import ConfigError
from atomstream.server.people.records import Entry
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import FILE_MODE, is_plain_file, open_file, prepare_for_library

PEOPLE_FILE: Final = "people.jsonl"
PEOPLE_LOCK: Final = "people.lock"
LOCK_S: Final = 10.0
"""Longest wait for another writer in s."""

_HASH_CHARS: Final = 32


class PeopleDamagedError(ConfigError):
    """``people.jsonl`` is damaged or was changed."""


class AnyPeopleLog(Protocol):
    """The log of people, in a file or in a database that servers share.

    Reads and appends; blocks. :attr:`damage` is a sentence if it is damaged; then nothing more is read or written.
    """

    damage: str

    def refresh(self) -> bool:
        """Read the lines that were added. True if there were any, or the log was found to be damaged."""

    def has_news(self) -> bool:
        """Whether there may be lines that were not read. Takes some microseconds."""

    def writing(self) -> AbstractContextManager[Callable[[Entry], None]]:
        """Context manager: nobody else appends, all lines were read, and the yielded function appends one."""


class PeopleLog:
    """Reads and appends. Blocks. ``receive`` is called with each entry, in their order, once.

    :attr:`damage` is a sentence if the file is damaged; then nothing more is read or written.
    """

    def __init__(
        self, data_dir: Path, receive: Callable[[Entry], None], file_system: FileSystem = LOCAL
    ) -> None:
        self.path = data_dir / PEOPLE_FILE
        self.damage = ""
        self._lock_path = data_dir / PEOPLE_LOCK
        self._receive = receive
        self._file_system = file_system
        self._read_to = 0
        self._number = 0
        self._hash = ""
        self._decoder = msgspec.json.Decoder(Entry)

    def refresh(self) -> bool:
        """Read the lines that were added. True if there were any, or the file was found to be damaged."""
        if self.damage:
            return False
        try:
            size = os.stat(self.path, follow_symlinks=False).st_size
        except FileNotFoundError:
            size = 0
        except OSError as error:
            return self._note_damage(f"it can't be read: {error.strerror}")
        if size == self._read_to:
            return False
        if size < self._read_to:
            return self._note_damage("it is shorter than it was")
        return self._read(size)

    def has_news(self) -> bool:
        """Whether the file has another length than what was read."""
        try:
            return not self.damage and os.stat(self.path, follow_symlinks=False).st_size != self._read_to
        except OSError:
            return self._read_to > 0

    def _read(self, size: int) -> bool:
        try:
            with open_file(self.path, "rb", buffering=0) as file:
                file.seek(self._read_to)
                data = file.read(size - self._read_to)
        except OSError as error:
            return self._note_damage(f"it can't be read: {error.strerror or error}")
        lines = data.split(b"\n")
        for line in lines[:-1]:  # what follows the last line break is being written, or was at a power cut
            self._number += 1
            try:
                entry = self._decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                return self._note_damage(f"its line {self._number} can't be read")
            if entry.after != self._hash:
                return self._note_damage(f"its line {self._number} does not follow the line before")
            self._receive(entry)
            self._hash = hashlib.sha256(line).hexdigest()[:_HASH_CHARS]
            self._read_to += len(line) + 1  # last: until then has_news() is True for other threads
        return len(lines) > 1

    def _note_damage(self, what: str) -> bool:
        self.damage = (
            f"The file of people and keys, {self.path}, is damaged: {what}. Nothing in it is valid until it is "
            "repaired: put the copy of a backup in its place, or remove it and make people and keys again. The "
            "server's own key (keys.json) is still valid."
        )
        return True

    @contextmanager
    def writing(self) -> Iterator[Callable[[Entry], None]]:
        """Context manager: no other process appends, all lines were read, and the yielded function appends one.

        Raises:
            PeopleDamagedError: the file is damaged. ConfigError: another process holds the lock. OSError: of the disk.
        """
        prepare_for_library(self._lock_path)
        lock = FileLock(self._lock_path, timeout=LOCK_S, thread_local=False, mode=FILE_MODE)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"Another process has been changing {self.path} for {LOCK_S:g} s; nothing was changed. Try again."
            ) from None
        try:
            self.refresh()
            if self.damage:
                raise PeopleDamagedError(self.damage)
            yield self._append
        finally:
            lock.release()

    def _append(self, entry: Entry) -> None:
        line = msgspec.json.encode(msgspec.structs.replace(entry, after=self._hash)) + b"\n"
        new = not is_plain_file(self.path)
        fd = self._file_system.create(self.path) if new else self._file_system.open_existing(self.path)
        try:
            if (
                os.fstat(fd).st_size > self._read_to
            ):  # an incomplete line of a power cut, whose change was never acknowledged
                self._file_system.truncate(fd, self._read_to)
            try:
                self._file_system.write_at(fd, self._read_to, line)
                self._file_system.sync(fd)
            except BaseException:  # what is reported as failed must not become valid at the next reading
                with suppress(OSError):
                    self._file_system.truncate(fd, self._read_to)
                raise
        finally:
            self._file_system.close(fd)
        if new:
            self._file_system.sync_folder(self.path.parent)
        self.refresh()
