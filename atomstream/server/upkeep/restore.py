"""Restores a backup into a new data folder.

All files are copied into ``.restoring`` in that folder and checked against the manifest, then moved to their places.
While ``.restoring`` exists no server starts there. After an interruption the same command begins again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import google_crc32c
from filelock import FileLock

from atomstream.counted import counted
from atomstream.errors import ConfigError
from atomstream.server.data_dir import LOCK_FILE, RESTORING, lock_data_dir
from atomstream.server.upkeep.backup import PIECE_BYTES
from atomstream.server.upkeep.manifest import (
    CopiedFile,
    Manifest,
    backups_in,
    is_complete,
    read_manifest,
)
from atomstream.server.upkeep.pace import Pace
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import is_link, open_file

_STREAMS: Final = "streams"


@dataclass
class RestoreReport:
    """What was restored, from which backup (made at ``made``, ISO 8601; empty for an interrupted one)."""

    backup: Path
    made: str
    streams: int = 0
    files: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    damaged: list[str] = field(default_factory=list)
    """Files of the backup that are missing or differ from its manifest; they were left out."""


def choose_backup(folder: Path, *, incomplete: bool = False) -> Path:
    """``folder`` itself if it is a backup, else the newest backup in it.

    ``incomplete`` permits an interrupted backup: the streams that were copied completely are used.

    Raises:
        ConfigError: no backup was found.
    """
    found = backups_in(folder.parent) if folder.parent != folder else []
    candidates = [one for one in found if one.name == folder.name] or backups_in(folder)
    usable = [one for one in candidates if incomplete or is_complete(one)]
    if usable:
        return usable[-1]
    if candidates:
        raise ConfigError(
            f"The only backup in {folder} was interrupted. With --incomplete, the streams that were copied completely "
            "are restored."
        )
    raise ConfigError(f"{folder} has no backup of atomstream.")


def restore(
    backup: Path,
    data_dir: Path,
    *,
    pace: Pace | None = None,
    file_system: FileSystem = LOCAL,
    say: Callable[[str], None] = lambda _line: None,
) -> RestoreReport:
    """Copy the backup in the folder ``backup`` to ``data_dir``, which must be empty or missing.

    Raises:
        ConfigError: no backup, or ``data_dir`` has other files. OSError: from a disk; calling it again is harmless.
    """
    manifest = read_manifest(backup)
    pace = pace or Pace()
    _check_space(manifest, data_dir)
    with_lock = _claim(data_dir, file_system)
    try:
        work = data_dir / RESTORING
        _remove_earlier(data_dir)
        file_system.make_folder(work)
        report = RestoreReport(backup, manifest.made)
        _copy_all(manifest, work, report, pace, file_system)
        for stream in manifest.streams.values():
            if (work / _STREAMS / stream.data_id).is_dir():
                report.streams += 1
                say(
                    f"{stream.data_id}  {counted(stream.chunks, 'chunk')}, {stream.nbytes / 1e6:.1f} MB  {stream.name}"
                )
        _move_into_place(work, data_dir, file_system)
        report.seconds = pace.seconds
        return report
    finally:
        with_lock.release()


def _check_space(manifest: Manifest, data_dir: Path) -> None:
    place = next(one for one in (data_dir, *data_dir.parents) if one.exists())
    wanted, free = sum(one.nbytes for one in manifest.files.values()), shutil.disk_usage(place).free
    if wanted > free:
        raise ConfigError(
            f"The backup has {wanted / 1e9:.1f} GB, and the disk of {data_dir} has {free / 1e9:.1f} GB free."
        )


def _claim(data_dir: Path, disk: FileSystem) -> FileLock:
    disk.make_folder(data_dir)
    names = {path.name for path in data_dir.iterdir()}
    if RESTORING not in names and names - {LOCK_FILE}:
        raise ConfigError(
            f"{data_dir} has files already, such as {min(names - {LOCK_FILE})!r}. Name a new folder, or an empty one."
        )
    return lock_data_dir(data_dir)


def _remove_earlier(data_dir: Path) -> None:
    """Remove what an interrupted run has made: nothing else has been made there since, as no server starts."""
    if not (data_dir / RESTORING).exists():
        return
    for path in data_dir.iterdir():
        if path.name in (LOCK_FILE, RESTORING):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(data_dir / RESTORING)


def _copy_all(manifest: Manifest, work: Path, report: RestoreReport, pace: Pace, disk: FileSystem) -> None:
    disk.make_folder(work / _STREAMS, durable=False)
    folders = {work, work / _STREAMS}
    for one in manifest.files.values():
        target = work / one.path
        if target.parent not in folders:
            disk.make_folder(target.parent, durable=False)
            folders.update({target.parent, *target.parent.parents} - set(work.parents))
        if _is_inside(manifest.folder, one.path) and _copy(
            manifest.folder / one.path, target, one, pace, disk
        ):
            report.files += 1
            report.nbytes += one.nbytes
        else:
            report.damaged.append(one.path)
    for folder in sorted(folders, reverse=True):
        disk.sync_folder(folder)


def _is_inside(folder: Path, name: str) -> bool:
    """False if a folder on the way to the file is a link: it would lead out of the backup."""
    return not any(is_link(folder / one) for one in list(PurePosixPath(name).parents)[:-1])


def _copy(source: Path, target: Path, wanted: CopiedFile, pace: Pace, disk: FileSystem) -> bool:
    """Copy one file; False, and no file, if it is missing or not the one of the manifest."""
    try:
        file = open_file(source, "rb", buffering=0)
    except OSError:
        return False
    crc = nbytes = 0
    with file:
        fd = disk.create(target)
        try:
            while nbytes <= wanted.nbytes and (piece := _read(file.read)):
                disk.write(fd, [piece])
                crc, nbytes = google_crc32c.extend(crc, piece), nbytes + len(piece)
                pace.note(len(piece))
            disk.sync(fd)
        finally:
            disk.close(fd)
    if (crc, nbytes) == (wanted.crc32c, wanted.nbytes):
        return True
    disk.unlink(target)
    return False


def _read(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(PIECE_BYTES)
    except OSError:  # the disk of the backup fails: the length shows it
        return b""


def _move_into_place(work: Path, data_dir: Path, disk: FileSystem) -> None:
    for path in sorted(work.iterdir(), key=lambda path: path.name == _STREAMS):
        disk.rename(path, data_dir / path.name)
    disk.sync_folder(data_dir)
    disk.remove_folder(work)
    disk.sync_folder(data_dir)
