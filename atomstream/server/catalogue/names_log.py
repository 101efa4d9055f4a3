"""The journal of what no stream's folder can tell: samples, tags and projects, and what tracks what.

An append-only file of JSON lines, ``names.jsonl``. With the streams' own files it is the whole truth; the
catalogue is made from both. A line is on disk before the request that caused it is answered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from atomstream.system.files import LOCAL, FileSystem

log = logging.getLogger("atomstream.server")
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
    """A sample was put into a project; an ``active`` one takes the place of the one before it."""

    project_id: str
    sample_id: str
    active: bool
    made: str


NameRecord: TypeAlias = SampleCreated | TagCreated | ProjectCreated | SampleTracked


class NamesLog:
    """Appends to and reads ``names.jsonl``; blocking, one writer (the owner of the data folder)."""

    def __init__(self, data_dir: Path, file_system: FileSystem = LOCAL) -> None:
        self._path = data_dir / JOURNAL_FILE
        self._file_system = file_system

    def append(self, line: NameRecord) -> None:
        """Write ``line`` and wait for the disk."""
        new = not self._path.exists()
        fd = self._file_system.create(self._path) if new else self._file_system.open_existing(self._path)
        try:
            size = os.fstat(fd).st_size
            self._file_system.write_at(fd, size, self._mend(size) + msgspec.json.encode(line) + b"\n")
            self._file_system.sync(fd)
        finally:
            self._file_system.close(fd)
        if new:
            self._file_system.sync_folder(self._path.parent)

    def _mend(self, size: int) -> bytes:
        # A line torn by a crash has no end: without one of its own the next line would be lost with it.
        if size == 0:
            return b""
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"

    def lines(self) -> Iterator[NameRecord]:
        """All lines, oldest first; one torn by a crash was never answered for, and is passed over."""
        try:
            rows = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        decoder = msgspec.json.Decoder(NameRecord)
        for number, row in enumerate(rows, start=1):
            if not row.strip():
                continue
            try:
                yield decoder.decode(row)
            except (msgspec.MsgspecError, UnicodeError):
                log.warning("line %d of %s can't be read and is passed over", number, self._path)
