"""The manifest of a backup: one JSON line for each file, with its length and CRC-32C.

A backup folder has one subfolder for each backup, named by its time (UTC). ``manifest.jsonl`` in it is written last:
a subfolder without it is an interrupted backup. Until then ``manifest.part`` has the lines of the streams that are
copied completely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

import google_crc32c
import msgspec

from atomstream.errors import ConfigError
from atomstream.server.data_dir import COPIED_NAMES
from atomstream.system.own_files import is_plain_file, read_plain

MANIFEST: Final = "manifest.jsonl"
PARTIAL: Final = "manifest.part"
FORMAT: Final = 1
_STREAMS: Final = "streams"
_FOLDERS: Final = frozenset({_STREAMS, "signals"})
"""Folders of a data folder whose files are copied, beside the files ``COPIED_NAMES``."""
_MOST_PARTS: Final = 16
_MOST_CHARS: Final = 1024


class CopiedFile(msgspec.Struct, frozen=True, tag_field="what", tag="file"):
    """A file of the backup; ``path`` is relative to the data folder, with slashes.

    ``mtime_ns`` is that of the original. It is None if the original was so new that it could have changed again
    without a new time: then the next backup copies it again, whatever its time is.
    """

    path: str
    nbytes: int
    crc32c: int
    mtime_ns: int | None = None


class CopiedStream(msgspec.Struct, frozen=True, tag_field="what", tag="stream"):
    """All files of a stream are in the lines before this one."""

    data_id: str
    name: str
    chunks: int
    nbytes: int


class End(msgspec.Struct, frozen=True, tag_field="what", tag="end"):
    """The last line; ``crc32c`` is that of all bytes before it."""

    format: int
    made: str
    source: str
    crc32c: int


Line: TypeAlias = CopiedFile | CopiedStream | End


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of one backup. ``made`` is empty for an interrupted one."""

    folder: Path
    files: dict[str, CopiedFile]
    streams: dict[str, CopiedStream]
    made: str = ""

    @property
    def is_complete(self) -> bool:
        """False for an interrupted backup."""
        return bool(self.made)


def encoded(lines: Iterable[Line]) -> bytes:
    """The lines as bytes."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def finished(lines: bytes, made: str, source: Path) -> bytes:
    """The whole manifest: ``lines`` and the end."""
    return lines + encoded([End(FORMAT, made, str(source), google_crc32c.value(lines))])


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup; of an interrupted backup, the part that was written.

    Raises:
        ConfigError: the folder has no manifest, or it is damaged.
    """
    complete = is_plain_file(folder / MANIFEST)
    path = folder / (MANIFEST if complete else PARTIAL)
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        raise ConfigError(f"{folder} is not a backup of atomstream: it has no {MANIFEST}.") from None
    files: dict[str, CopiedFile] = {}
    streams: dict[str, CopiedStream] = {}
    pending: dict[str, CopiedFile] = {}
    end: End | None = None
    for line in _parse(raw, path, whole=complete):
        if isinstance(line, CopiedFile):
            pending[_checked(line.path, path)] = line
        elif isinstance(line, CopiedStream):
            _checked(f"{_STREAMS}/{line.data_id}", path)
            streams[line.data_id] = line
            files.update(pending)
            pending.clear()
        else:
            end = line
    # In an interrupted backup, files of a stream without its own line are those of a half copied one.
    files.update({name: one for name, one in pending.items() if complete or "/" not in name})
    if complete and (end is None or not _fits(raw, end)):
        raise ConfigError(f"{path} is damaged: its checksum is wrong. Use another backup of the folder.")
    if end is not None and end.format != FORMAT:
        raise ConfigError(f"{path} was written by another version of atomstream (format {end.format}).")
    return Manifest(folder, files, streams, end.made if end else "")


def backups_in(folder: Path) -> list[Path]:
    """The subfolders of ``folder`` that are backups, complete or not, the oldest first."""
    if not folder.is_dir():
        return []
    names = (MANIFEST, PARTIAL)
    return sorted(one for one in folder.iterdir() if any((one / name).is_file() for name in names))


def is_complete(backup: Path) -> bool:
    """Whether the backup in this folder was finished."""
    return is_plain_file(backup / MANIFEST)


def _parse(raw: bytes, path: Path, *, whole: bool) -> Iterator[Line]:
    decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
    for number, row in enumerate(raw.split(b"\n"), start=1):
        if not row:
            continue
        try:
            yield decoder.decode(row)
        except (msgspec.MsgspecError, UnicodeError) as error:
            if not whole:  # the process was killed while it wrote this line
                return
            raise ConfigError(f"{path} is damaged in line {number}: {error}.") from None


def _fits(raw: bytes, end: End) -> bool:
    lines = raw[: raw.rstrip(b"\n").rfind(b"\n") + 1]
    return bool(google_crc32c.value(lines) == end.crc32c)


def _checked(name: str, manifest: Path) -> str:
    """A name from the manifest that a file of a data folder can have; raises ConfigError for any other."""
    parts = PurePosixPath(name).parts
    plain = str(PurePosixPath(name)) == name and "\\" not in name and ":" not in name and "\0" not in name
    known = name in COPIED_NAMES or (len(parts) > 1 and parts[0] in _FOLDERS)
    if not known or not plain or ".." in parts or len(parts) > _MOST_PARTS or len(name) > _MOST_CHARS:
        raise ConfigError(f"{manifest} names {name[:200]!r}, which is not a file inside of a data folder.")
    return name
