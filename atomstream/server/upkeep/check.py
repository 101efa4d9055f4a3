"""Reads every file of a data folder and compares it with its checksum, also while the server runs. Nothing is changed.

What has a checksum: each shard (that of the received body, so every byte from the client's encoder on), each record
of the analysis and of the annotations, checkpoints and saved states. Documents and names have none; they must be
readable. Columns have none either: they follow from the shards and records, and must have their full length.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, ParamSpec

import google_crc32c
import msgspec

from atomstream.errors import AtomstreamError, ConfigError, ShardError
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.metadata import ABOUT, read_about, read_about_file
from atomstream.server.archive.records import Geometry
from atomstream.server.archive.shard_file import ShardFile, body_crc32c, read_trailer
from atomstream.server.archive.small_arrays import check_content, is_small
from atomstream.server.archive.timestamp_columns import recorded_chunks, recorded_origin
from atomstream.server.archive.zarr_group import DOCUMENT, ZarrGroup
from atomstream.server.catalogue.names_log import JOURNAL_FILE, NameRecord
from atomstream.server.people.log import PEOPLE_FILE, PeopleLog
from atomstream.server.people.passwords import PASSWORDS_FILE
from atomstream.server.upkeep.pace import Pace
from atomstream.shard import index_nbytes
from atomstream.system.own_files import open_file, read_plain
from atomstream.system.record_scan import HEAD, MAGIC, MAX_RECORD_BYTES, scan

PIECE_BYTES: Final = 1 << 20
_LOGS: Final = ("analysis/results.log", "analysis/inputs.log")
_CHECKED: Final = ("analysis/checkpoint", "analysis/state", "analysis/profiles")

P = ParamSpec("P")


@dataclass
class CheckReport:
    """What was read, and which files are damaged: each with its path in the data folder and the reason."""

    streams: int = 0
    shards: int = 0
    records: int = 0
    files: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    damaged: list[str] = field(default_factory=list)


def check(
    data_dir: Path, *, pace: Pace | None = None, say: Callable[[str], None] = lambda _line: None
) -> CheckReport:
    """Check all files of the data folder; ``say`` gets a line for each damaged one.

    Raises:
        ConfigError: it is not a data folder.
    """
    if not (data_dir / "streams").is_dir():
        raise ConfigError(f"{data_dir} is not the data folder of an atomstream server: it has no 'streams'.")
    checker = _Checker(data_dir, pace or Pace(), say)
    checker.check_names()
    for folder in sorted((data_dir / "streams").iterdir()):
        if (folder / ABOUT).exists() or (folder / "frames.zarr").is_dir():
            checker.check_stream(folder)
    for path in sorted((data_dir / "signals").glob("*.*")):
        checker.check_signals(path)
    checker.report.nbytes, checker.report.seconds = checker.pace.nbytes, checker.pace.seconds
    return checker.report


class _Checker:
    def __init__(self, data_dir: Path, pace: Pace, say: Callable[[str], None]) -> None:
        self._data_dir = data_dir
        self.pace = pace
        self._say = say
        self.report = CheckReport()

    def _try(self, path: Path, check: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a check of one file; a file that has disappeared meanwhile (a deleted stream) is not damaged."""
        self.report.files += 1
        try:
            check(*args, **kwargs)
        except FileNotFoundError:
            return
        except (AtomstreamError, OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
            self._note(path, str(getattr(error, "strerror", None) or error))

    def _note(self, path: Path, why: str) -> None:
        line = f"{path.relative_to(self._data_dir).as_posix()}: {' '.join(why.split())[:300]}"
        self.report.damaged.append(line)
        self._say(line)

    def check_names(self) -> None:
        """The files beside the streams."""
        keys, names = self._data_dir / "keys.json", self._data_dir / JOURNAL_FILE
        self._try(keys, self._check_keys, keys)
        self._try(names, self._check_lines, names)
        people, passwords = self._data_dir / PEOPLE_FILE, self._data_dir / PASSWORDS_FILE
        if people.exists():
            self._try(people, self._check_people, people)
        if passwords.exists():
            self._try(passwords, self._check_passwords, passwords)

    def _check_keys(self, path: Path) -> None:
        msgspec.json.decode(self._read(path), type=list[dict[str, Any]])

    def _check_people(self, path: Path) -> None:
        log = PeopleLog(self._data_dir, lambda _entry: None)
        log.refresh()
        self.pace.note(path.stat().st_size)
        if log.damage:
            raise ConfigError(log.damage)

    def _check_passwords(self, path: Path) -> None:
        msgspec.json.decode(self._read(path), type=dict[str, str])

    def _check_lines(self, path: Path) -> None:
        decoder = msgspec.json.Decoder(NameRecord)
        rows = self._read(path).split(b"\n")
        for number, row in enumerate(rows, start=1):
            try:
                decoder.decode(row or b'{"type":"tag","id":"","name":"","made":""}')
            except (msgspec.MsgspecError, UnicodeError):
                if number < len(rows):  # otherwise the server is writing it now
                    self._note(path, f"line {number} can't be read")

    def check_signals(self, path: Path) -> None:
        """One file of a stream of signals: its description or its points."""
        if path.suffix == ".json":
            self._try(path, self._check_document, path)
        elif path.suffix == ".log":
            self._try(path, self._check_log, path)

    def check_stream(self, folder: Path) -> None:
        """All files of one stream."""
        self.report.streams += 1
        self._try(folder / ABOUT, self._check_about, folder)
        group = ZarrGroup(folder / "frames.zarr", ArchiveFiles(folder / "incoming"))
        for path in _listed(group.folder, DOCUMENT, f"*/{DOCUMENT}"):
            self._try(path, self._check_document, path)
        self._try(group.folder, self._check_shards, folder, group)
        for path in _listed(group.folder, "*/c/*"):
            if path.name.isdecimal() and path.is_file():
                self._try(path, self._check_column, path, group)
        for name in _LOGS:
            self._try(folder / name, self._check_log, folder / name)
        for name in _CHECKED:
            self._try(folder / name, self._check_small, folder / name)

    def _check_about(self, folder: Path) -> None:
        if not (folder / ABOUT).exists():
            raise ValueError("it is missing")
        read_about(read_about_file(folder))

    def _check_document(self, path: Path) -> None:
        if not isinstance(json.loads(self._read(path)), dict):
            raise ValueError("it is not a document of Zarr")

    def _check_shards(self, folder: Path, group: ZarrGroup) -> None:
        # The records first: a chunk that is recorded was stored before.
        group.load()
        geometry = group.geometry()
        recorded = recorded_chunks(group)[0] if recorded_origin(group) is not None else {}
        found = _stored_indices(group.shards)
        for index in sorted(found | recorded.keys()):
            path = group.shards / str(index) / "0" / "0"
            if not path.exists():
                if index in recorded and (folder / ABOUT).exists():
                    self._note(path, "this chunk was stored, and its file is missing")
                continue
            if geometry is None:
                self._note(path, "the metadata of `frames` is lost, so it can't be read")
                continue
            self.report.shards += 1
            self._try(path, self._check_shard_again, path, geometry)

    def _check_shard_again(self, path: Path, geometry: Geometry) -> None:
        """Check a shard; once more after an error, in case the server thinned it at that moment."""
        try:
            self._check_shard(path, geometry)
        except ShardError:
            self._check_shard(path, geometry)

    def _check_shard(self, path: Path, geometry: Geometry) -> None:
        """Rebuild the body that was received, and compare its CRC-32C with that noted at its upload."""
        slots, dtype = geometry.chunk_size, geometry.dtype
        trailer = read_trailer(path, dtype, slots)
        n_frames = trailer.stamps.dims[0]
        with ShardFile(path, trailer.stamps.dims, dtype, slots) as shard:
            if shard.content_nbytes + index_nbytes(n_frames) != trailer.nbytes:
                raise ShardError("its length is not the noted one")
            crc = body_crc32c(shard, n_frames, self.pace.note)
        if crc != trailer.crc32c:
            raise ShardError(f"its checksum is {crc:08x}, not {trailer.crc32c:08x}")

    def _check_column(self, path: Path, group: ZarrGroup) -> None:
        name, nbytes = path.parent.parent.name, path.stat().st_size
        document = group.documents.get(name)
        if document is not None and is_small(document):
            check_content(document, self._read(path))
            return
        sizes = (4, 8) if document is None else (int(document["data_type"].strip("floatuin")) // 8,)
        if nbytes not in {COLUMN_CHUNK * size for size in sizes}:
            raise ValueError(f"it has {nbytes} bytes, not {COLUMN_CHUNK * sizes[-1]}")
        for piece in _pieces(path):
            self.pace.note(len(piece))

    def _check_log(self, path: Path) -> None:
        with open_file(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            magic = file.read(len(MAGIC))
            if magic != MAGIC[: len(magic)]:
                raise ValueError("it does not begin as a log")
            at = len(magic)
            while at < size:
                nbytes = self._record_nbytes(file, size - at)
                if nbytes:
                    at += nbytes
                    self.report.records += 1
                    continue
                # An incomplete record at the end is not damage: it is being written, or was at a power cut.
                if nbytes == 0 or scan(file).end > at:
                    raise ValueError(f"it is damaged at byte {at}")
                return

    def _record_nbytes(self, file: BinaryIO, rest: int) -> int | None:
        """The length of the next record with its head, None if it goes beyond the ``rest`` bytes, 0 if damaged."""
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        nbytes, crc = HEAD.unpack(head)
        if nbytes > MAX_RECORD_BYTES:
            return 0
        if nbytes > rest - HEAD.size:
            return None
        payload = file.read(nbytes)
        self.pace.note(len(head) + nbytes)
        return HEAD.size + nbytes if nbytes and google_crc32c.value(payload) == crc else 0

    def _check_small(self, path: Path) -> None:
        raw = self._read(path)
        if len(raw) <= 4 or google_crc32c.value(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
            raise ValueError("its checksum is wrong")

    def _read(self, path: Path) -> bytes:
        raw = read_plain(path, 1 << 40)
        self.pace.note(len(raw))
        return raw


def _stored_indices(shards: Path) -> set[int]:
    names = [path.name for path in shards.iterdir()] if shards.is_dir() else []
    return {int(name) for name in names if name.isascii() and name.isdecimal() and str(int(name)) == name}


def _listed(folder: Path, *patterns: str) -> list[Path]:
    try:
        return sorted(path for pattern in patterns for path in folder.glob(pattern))
    except FileNotFoundError:
        return []


def _pieces(path: Path) -> Iterator[bytes]:
    with open_file(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
