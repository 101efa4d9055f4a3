"""The names log: an append-only file of JSON lines with the creation of samples, tags and projects.

``names.jsonl`` has what is not in the streams' folders. The catalogue is built from both. A record is on disk before
the request that caused it is answered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_plain_file, open_file, read_plain

log = get_logger("atomstream.server")
JOURNAL_FILE = "names.jsonl"


class SampleCreated(msgspec.Struct, frozen=True, tag="sample"):
    """A physical sample was created; ``made`` is ISO 8601, UTC."""

    id: str
    name: str
    made: str


class TagCreated(msgspec.Struct, frozen=True, tag="tag"):
    """A tag was created."""

    id: str
    name: str
    made: str


class ProjectCreated(msgspec.Struct, frozen=True, tag="project"):
    """A project was created."""

    id: str
    name: str
    made: str


class SampleTracked(msgspec.Struct, frozen=True, tag="tracking"):
    """A sample was put into a project. An ``active`` one replaces the project's active sample."""

    project_id: str
    sample_id: str
    active: bool
    made: str


class StreamDeleted(msgspec.Struct, frozen=True, tag="deleted", omit_defaults=True):
    """A stream was deleted: requests about it are answered with 410, so that its client does not wait for it.

    For those who do not see the project that it was in, it does not exist.
    """

    id: str
    name: str
    made: str
    project_id: str | None = None


NameRecord: TypeAlias = SampleCreated | TagCreated | ProjectCreated | SampleTracked | StreamDeleted


class NamesLog:
    """Appends to and reads ``names.jsonl``. Blocks; one writer, the process that owns the data folder."""

    def __init__(self, data_dir: Path, file_system: FileSystem = LOCAL) -> None:
        self._path = data_dir / JOURNAL_FILE
        self._file_system = file_system

    def append(self, line: NameRecord) -> None:
        """Write a record and wait until it is on disk; raises OSError."""
        new = not is_plain_file(self._path)
        fd = self._file_system.create(self._path) if new else self._file_system.open_existing(self._path)
        try:
            size = os.fstat(fd).st_size
            self._file_system.write_at(
                fd, size, self._missing_line_end(size) + msgspec.json.encode(line) + b"\n"
            )
            self._file_system.sync(fd)
        finally:
            self._file_system.close(fd)
        if new:
            self._file_system.sync_folder(self._path.parent)

    def _missing_line_end(self, size: int) -> bytes:
        # A crash may leave a line without its end. Without a line break the next record would be lost with it.
        if size == 0:
            return b""
        with open_file(self._path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"

    def lines(self) -> Iterator[NameRecord]:
        """All records, oldest first. A line that a crash left incomplete is skipped: its request was never answered."""
        try:
            rows = read_plain(self._path).split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            log.warning("%s is a link, or not a file: it is not read", self._path)
            return
        decoder = msgspec.json.Decoder(NameRecord)
        for number, row in enumerate(rows, start=1):
            if not row.strip():
                continue
            try:
                yield decoder.decode(row)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                log.warning("line %d of %s can't be read and is skipped", number, self._path)
