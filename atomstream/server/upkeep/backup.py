"""A consistent copy of a data folder while its server runs and streams grow.

The server writes in a fixed order: a chunk's shard, then the columns that are derived from it, then the documents
that cover them, then the records of the analysis. Each stream is copied in the opposite order. So the copy of a file
never refers to something that is not in the copy, and what is newer than a file is completed at the next start as
after a crash. (Shards never change; documents are replaced whole; logs only grow, and half a record at the end is
cut off when a log is opened.)

Each backup is a separate folder with all files. A file that did not change since the last backup is not copied
again but linked (a second name of the same file), where the disk can do that.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c
from filelock import FileLock, Timeout

from atomstream.counted import counted
from atomstream.errors import AtomstreamError, ConfigError
from atomstream.server.archive.metadata import ABOUT, read_about_file
from atomstream.server.data_dir import COPIED_NAMES, LOCK_FILE, upkeep_lock
from atomstream.server.upkeep.manifest import (
    MANIFEST,
    PARTIAL,
    CopiedFile,
    CopiedStream,
    Manifest,
    backups_in,
    encoded,
    finished,
    is_complete,
    read_manifest,
)
from atomstream.server.upkeep.pace import Pace
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import FILE_MODE, is_link, open_file, prepare_for_library, read_plain

PIECE_BYTES: Final = 1 << 20
SETTLED_NS: Final = 2_000_000_000
"""Age in s from which on a file may be linked in the next backup instead of copied: the time stamps of disks are
coarse."""

_RUNNING: Final = "analysis/running"
_RESULTS: Final = "analysis/results.log"
# Derived files first, their sources last.
_STAGES: Final = (
    (_RUNNING, "analysis/state", "analysis/profiles", "analysis/checkpoint"),
    (_RESULTS,),
    ("analysis/*",),
    ("frames.zarr/zarr.json", "frames.zarr/*/zarr.json"),
    ("frames.zarr/*/c/*",),
    ("frames.zarr/frames/c/*/0/0",),
    ("*",),
)


@dataclass
class BackupReport:
    """What a backup has copied. ``linked_*`` are the files that had not changed since the last backup."""

    folder: Path
    streams: int = 0
    chunks: int = 0
    files: int = 0
    nbytes: int = 0
    linked_files: int = 0
    linked_nbytes: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    """Files and streams that could not be read, each with the reason."""


def back_up(
    data_dir: Path,
    target: Path,
    *,
    pace: Pace | None = None,
    file_system: FileSystem = LOCAL,
    say: Callable[[str], None] = lambda _line: None,
) -> BackupReport:
    """Copy the data folder ``data_dir`` into a new subfolder of ``target``; ``say`` gets a line for each stream.

    Raises:
        ConfigError: no data folder, ``target`` is inside of it, or another backup to it runs.
        OSError: from the disk of ``target``; earlier backups are unchanged.
    """
    if not (data_dir / "streams").is_dir():
        raise ConfigError(f"{data_dir} is not the data folder of an atomstream server: it has no 'streams'.")
    if target.resolve().is_relative_to(data_dir.resolve()):
        raise ConfigError(f"{target} is inside of the data folder: name a folder on another disk.")
    file_system.make_folder(target)
    prepare_for_library(target / LOCK_FILE)
    lock = FileLock(target / LOCK_FILE, timeout=0, thread_local=False, mode=FILE_MODE)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"Another backup to {target} is running.") from None
    try:
        with _no_retention(data_dir):
            return _Backup(data_dir, target, pace or Pace(), file_system, say).run()
    finally:
        lock.release()


@contextmanager
def _no_retention(data_dir: Path) -> Iterator[None]:
    """Keep the rules of retention from changing the folder in this block."""
    lock = upkeep_lock(data_dir)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"The rules of retention are being applied to {data_dir}, or another backup of it runs. Try again later."
        ) from None
    except OSError:  # a read-only folder: no process on this computer changes it
        yield
        return
    try:
        yield
    finally:
        lock.release()


class _Backup:
    def __init__(
        self, data_dir: Path, target: Path, pace: Pace, disk: FileSystem, say: Callable[[str], None]
    ) -> None:
        self._data_dir = data_dir
        self._pace = pace
        self._disk = disk
        self._say = say
        earlier = backups_in(target)
        self._interrupted = [one for one in earlier if not is_complete(one)]
        self._before = self._last_complete([one for one in earlier if is_complete(one)])
        if self._before is not None:
            self._remove_interrupted()
        self._made = datetime.now(UTC).isoformat(timespec="seconds")
        self._folder = _new_folder(target)
        self._folders: set[Path] = set()
        self._lines = b""
        self.report = BackupReport(self._folder)

    def run(self) -> BackupReport:
        self._make_folder(self._folder)
        with open_file(self._folder / PARTIAL, "xb", buffering=0) as partial:
            self._copy_top(partial)
            for data_id in sorted(_stream_ids(self._data_dir)):
                self._copy_stream(data_id, partial)
            # Once more and last: so all samples and projects of the copied streams are in it.
            counted = replace(self.report)
            self._copy_top(partial)
            self.report.files, self.report.nbytes = counted.files, counted.nbytes
            self.report.linked_files, self.report.linked_nbytes = counted.linked_files, counted.linked_nbytes
        for folder in sorted(self._folders, reverse=True):
            self._disk.sync_folder(folder)
        self._disk.sync_folder(self._folder.parent)
        content = finished(self._lines, self._made, self._data_dir)
        self._disk.write_atomic(self._folder / MANIFEST, [content])
        self._disk.unlink(self._folder / PARTIAL)
        self._remove_interrupted()
        self.report.seconds = self._pace.seconds
        return self.report

    def _last_complete(self, complete: list[Path]) -> Manifest | None:
        for folder in reversed(complete):
            with suppress(ConfigError, OSError):
                return read_manifest(folder)
        return None

    def _remove_interrupted(self) -> None:
        for folder in self._interrupted:
            shutil.rmtree(folder, ignore_errors=True)
        self._interrupted = []

    def _note(self, partial: BinaryIO, lines: bytes) -> None:
        self._lines += lines
        partial.write(lines)

    def _copy_top(self, partial: BinaryIO) -> None:
        for name in [*sorted(COPIED_NAMES), *_signal_files(self._data_dir)]:
            copied = self._try_copy(name)
            if copied is not None:
                self._note(partial, encoded([copied]))

    def _copy_stream(self, data_id: str, partial: BinaryIO) -> None:
        folder, base = self._data_dir / "streams" / data_id, f"streams/{data_id}"
        before, copied = _read_or_none(folder / _RUNNING), dict[str, CopiedFile]()
        for stage in _STAGES:
            for name in _names(folder, stage):
                path = f"{base}/{name}"
                if path not in copied and (one := self._try_copy(path)) is not None:
                    copied[path] = one
        if f"{base}/{ABOUT}" not in copied:  # deleted meanwhile, or never created completely
            shutil.rmtree(self._folder / base, ignore_errors=True)
            return
        self._mark_running(base, folder, before, copied)
        try:
            name = str(read_about_file(self._folder / base).get("name", ""))
        except (AtomstreamError, OSError) as error:
            name = ""
            self.report.problems.append(f"{base}/{ABOUT}: {error}")
        chunks = sum(path.startswith(f"{base}/frames.zarr/frames/c/") for path in copied)
        nbytes = sum(one.nbytes for one in copied.values())
        self._note(partial, encoded([*copied.values(), CopiedStream(data_id, name, chunks, nbytes)]))
        self.report.streams += 1
        self.report.chunks += chunks
        self._say(f"{data_id}  {counted(chunks, 'chunk')}, {nbytes / 1e6:.1f} MB  {name}")

    def _mark_running(
        self, base: str, folder: Path, before: bytes | None, copied: dict[str, CopiedFile]
    ) -> None:
        """Note in the copy that the analysis had not ended, if it ran at any time during the copy.

        It could have begun after ``running`` was copied, or ended after its records were: then the copy has a part of
        the records and no note that there are more to come.
        """
        after = _read_or_none(folder / _RUNNING)
        log = copied.get(f"{base}/{_RESULTS}")
        grown = _size(folder / _RESULTS) != (log.nbytes if log else 0)
        wanted = after or before or (b"live" if grown else None)
        path = f"{base}/{_RUNNING}"
        if wanted is None:
            if copied.pop(path, None) is not None:
                self._disk.unlink(self._folder / path)
            return
        self._make_folder((self._folder / path).parent)
        self._disk.unlink(self._folder / path)
        self._disk.write_atomic(self._folder / path, [wanted], durable=False)
        copied[path] = CopiedFile(path, len(wanted), google_crc32c.value(wanted))

    def _try_copy(self, name: str) -> CopiedFile | None:
        source = self._data_dir / name
        try:
            file = open_file(source, "rb", buffering=0)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.report.problems.append(f"{name}: {error.strerror or error}")
            return None
        with file:
            return self._link(name, file) or self._copy(name, file)

    def _link(self, name: str, file: BinaryIO) -> CopiedFile | None:
        """A second name of the file in the last backup, if the original is the same as it was then."""
        before = None if self._before is None else self._before.files.get(name)
        if self._before is None or before is None or before.mtime_ns is None:
            return None
        found, old = os.fstat(file.fileno()), self._before.folder / name
        if (found.st_mtime_ns, found.st_size) != (before.mtime_ns, before.nbytes):
            return None
        if _size(old) != before.nbytes or is_link(old):
            return None
        target = self._folder / name
        self._make_folder(target.parent)
        self._disk.unlink(target)
        try:
            os.link(old, target)
        except OSError:  # this disk has no links, or no more of this file
            return None
        self.report.linked_files += 1
        self.report.linked_nbytes += before.nbytes
        return before

    def _copy(self, name: str, file: BinaryIO) -> CopiedFile | None:
        found, target = os.fstat(file.fileno()), self._folder / name
        self._make_folder(target.parent)
        crc, done = 0, 0
        fd = self._disk.create(target)
        try:
            while done < found.st_size:  # not beyond it: a log grows while it is copied
                try:
                    piece = file.read(min(PIECE_BYTES, found.st_size - done))
                except OSError as error:
                    self.report.problems.append(f"{name}: {error.strerror or error}")
                    self._disk.unlink(target)
                    return None
                if not piece:
                    break
                self._disk.write(fd, [piece])
                crc, done = google_crc32c.extend(crc, piece), done + len(piece)
                self._pace.note(len(piece))
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self.report.files += 1
        self.report.nbytes += done
        settled = time.time_ns() - found.st_mtime_ns > SETTLED_NS and done == found.st_size
        return CopiedFile(name, done, crc, found.st_mtime_ns if settled else None)

    def _make_folder(self, folder: Path) -> None:
        if folder not in self._folders:
            self._disk.make_folder(folder, durable=False)
            self._folders.update({folder, *folder.parents} - set(self._folder.parent.parents))


def _new_folder(target: Path) -> Path:
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    folder, number = target / name, 1
    while folder.exists():
        number += 1
        folder = target / f"{name}-{number}"
    return folder


def _stream_ids(data_dir: Path) -> list[str]:
    return [path.name for path in (data_dir / "streams").iterdir() if (path / ABOUT).is_file()]


def _signal_files(data_dir: Path) -> list[str]:
    """The descriptions and logs of signals, which need no order: each point is in one record, and only adds to it."""
    folder = data_dir / "signals"
    found = [path for suffix in ("json", "log") for path in folder.glob(f"*.{suffix}")]
    return sorted(f"signals/{path.name}" for path in found if path.is_file() and not is_link(path))


def _names(folder: Path, stage: tuple[str, ...]) -> list[str]:
    """The files of a stage, relative to the stream's folder, without links. None if the stream is being deleted."""
    try:
        found = {path for pattern in stage for path in folder.glob(pattern) if path.is_file()}
    except FileNotFoundError:
        return []
    return sorted(path.relative_to(folder).as_posix() for path in found if not is_link(path))


def _read_or_none(path: Path) -> bytes | None:
    try:
        return read_plain(path) or b"live"
    except OSError:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
