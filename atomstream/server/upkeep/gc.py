"""Finds and removes unreferenced files: leftovers of interrupted work, and old files that were set aside.

Works while the server runs, because only what has not changed for a day is a leftover: an upload, a document or the
creation of a stream takes minutes at most. Frames and results are never removed: a folder that lost its
description but has chunks is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError
from atomstream.server.archive.archive_files import SET_ASIDE
from atomstream.server.archive.metadata import ABOUT
from atomstream.server.data_dir import COPIED_NAMES
from atomstream.server.streams.registry import DELETED
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import is_link

LEFTOVER_S: Final = 86_400.0
"""Age in s from which on a temporary file is a leftover."""
_OWN: Final = COPIED_NAMES | {"sessions.json", "signing.key", "key-use.json", "catalogue.sqlite"}
_TEMPORARY: Final = re.compile(r"[0-9a-f]{32}\.part|.+\.tmp")
_ASIDE: Final = re.compile(r".+\.(damaged|aside)-[0-9]+")


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file or folder to be removed: why, its bytes and its age in days."""

    path: Path
    why: str
    nbytes: int
    days: float


@dataclass
class GcReport:
    """What was found; ``removed`` is 0 for a dry run, ``failed`` names what could not be removed."""

    found: list[Garbage] = field(default_factory=list)
    removed: int = 0
    removed_nbytes: int = 0
    failed: list[str] = field(default_factory=list)


def collect_garbage(
    data_dir: Path,
    *,
    days: float,
    delete: bool,
    file_system: FileSystem = LOCAL,
    clock: Callable[[], float] = time.time,
    say: Callable[[Garbage], None] = lambda _garbage: None,
) -> GcReport:
    """Find unreferenced files, and with ``delete`` remove them.

    ``days`` is the age from which on files that were set aside are removed.

    Raises:
        ConfigError: it is not a data folder.
    """
    if not (data_dir / "streams").is_dir():
        raise ConfigError(f"{data_dir} is not the data folder of an atomstream server: it has no 'streams'.")
    report = GcReport()
    for garbage in _find(data_dir, days, clock()):
        report.found.append(garbage)
        say(garbage)
        if not delete:
            continue
        try:
            _remove(garbage.path, file_system)
        except OSError as error:
            report.failed.append(f"{garbage.path}: {error.strerror or error}")
        else:
            report.removed += 1
            report.removed_nbytes += garbage.nbytes
    return report


def _find(data_dir: Path, days: float, now: float) -> Iterator[Garbage]:
    streams = data_dir / "streams"
    for garbage in _old_files(data_dir, days, now):
        # Other files in the data folder belong to other programs.
        if garbage.path.parent.name == SET_ASIDE or garbage.path.name.startswith(tuple(_OWN)):
            yield garbage
    for folder in sorted(_entries(streams / DELETED)):
        # The description stays until a start of the server has noted that the stream was deleted.
        for path in sorted(path for path in _entries(folder) if path.name != ABOUT):
            yield Garbage(path, "of a deleted stream", _nbytes(path), _age_s(path, now) / 86_400)
    for folder in sorted(_entries(streams)):
        if is_link(folder) or not folder.is_dir() or folder.name == DELETED:
            continue
        if not (folder / ABOUT).exists():
            if _age_s(folder, now) > LEFTOVER_S and not _has_content(folder):
                why = "a stream whose creation was interrupted"
                yield Garbage(folder, why, _nbytes(folder), _age_s(folder, now) / 86_400)
            continue
        for place in (folder, folder / "incoming", folder / "analysis"):
            yield from _old_files(place, days, now)
        yield from _empty_chunks(folder / "frames.zarr" / "frames" / "c", now)


def _old_files(folder: Path, days: float, now: float) -> Iterator[Garbage]:
    for path in sorted(_entries(folder)):
        age_s = _age_s(path, now)
        if _TEMPORARY.fullmatch(path.name) and age_s > LEFTOVER_S and _is_file(path):
            yield Garbage(path, "left by an interrupted write", _nbytes(path), age_s / 86_400)
        elif _ASIDE.fullmatch(path.name) and age_s > days * 86_400:
            yield Garbage(path, "damaged, was set aside", _nbytes(path), age_s / 86_400)
    for path in sorted(_entries(folder / SET_ASIDE)):
        if (age_s := _age_s(path, now)) > days * 86_400:
            yield Garbage(path, "damaged, was set aside", _nbytes(path), age_s / 86_400)


def _empty_chunks(shards: Path, now: float) -> Iterator[Garbage]:
    """Folders of chunks without a file: the process ended before the shard got its name."""
    for folder in sorted(_entries(shards)):
        inner = folder / "0"
        if folder.name.isdecimal() and not is_link(folder) and not (inner / "0").exists():
            empty = all(path == inner for path in _entries(folder)) and not _entries(inner)
            if empty and min(_age_s(folder, now), _age_s(inner, now)) > LEFTOVER_S:
                yield Garbage(
                    folder, "a chunk whose storing was interrupted", 0, _age_s(folder, now) / 86_400
                )


def _has_content(folder: Path) -> bool:
    """Whether a folder without a description has chunks or results: then its description was lost."""
    shards = folder / "frames.zarr" / "frames" / "c"
    return any((chunk / "0" / "0").exists() for chunk in _entries(shards)) or bool(
        _entries(folder / "analysis")
    )


def _remove(path: Path, disk: FileSystem) -> None:
    if path.is_dir() and not is_link(path):
        shutil.rmtree(path)
    else:
        disk.unlink(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if not is_link(folder) else []
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_file(path: Path) -> bool:
    return path.is_file() or is_link(path)


def _age_s(path: Path, now: float) -> float:
    """Seconds since the last change of content or name; 0 for what has disappeared."""
    try:
        found = os.lstat(path)
        return now - max(found.st_mtime, found.st_ctime)
    except OSError:
        return 0.0


def _nbytes(path: Path) -> int:
    if is_link(path) or not path.is_dir():
        return os.lstat(path).st_size if path.exists() else 0
    return sum(_nbytes(one) for one in _entries(path))
