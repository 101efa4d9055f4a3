"""Simulated power cuts: a file system that records every call, and the files that a cut may leave behind.

The model is what POSIX promises and no more: a file's bytes are safe once it was synced, a folder's entries
once the folder was. Of everything since then any part may be there or not, in any order; a write may be torn, or
only its length may be there (file systems record a file's length and its blocks independently): what it added to the
file then reads as zeros. Bytes that a lost write would have replaced stay as they were.
One thing more than POSIX promises: a rename between two folders may leave both names, but never none. File systems with
a journal (ext4, XFS, NTFS, APFS) do it in one transaction.
The spool's tests and the archive's use it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atomstream.records import Piece
from atomstream.system.files import FileSystem


@dataclass
class Inode:
    """A file: all changes of its content, and how many of them are safe."""

    changes: list[tuple[str, int, bytes]] = field(default_factory=list)
    safe: int = 0


@dataclass
class Name:
    """One change of a folder: these names now mean these inodes (None: no file)."""

    folder: Path
    entries: dict[Path, Inode | str | None]
    safe: bool = False
    after: Name | None = None
    """A change that must be there if this one is."""


class RecordingFileSystem(FileSystem):
    """The real file system; its log of all calls can be replayed up to any moment. For one thread at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, object, object]] = []
        self._files: dict[int, tuple[int, int]] = {}
        self._inodes = 0
        self._at: dict[Path, int] = {}

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.log.append(("unlink", path, None))
        self._open_new(path)
        self._files[fd] = (self._at[path], 0)
        return fd

    def _open_new(self, path: Path) -> None:
        self._inodes += 1
        self._at[path] = self._inodes
        self.log.append(("create", path, self._inodes))

    def open_truncated(self, path: Path, position: int) -> int:
        fd = super().open_truncated(path, position)
        self._files[fd] = (self._at[path], position)
        self.log.append(("cut", self._at[path], position))
        return fd

    def open_existing(self, path: Path) -> int:
        fd = super().open_existing(path)
        self._files[fd] = (self._at[path], 0)
        return fd

    def truncate(self, fd: int, position: int) -> None:
        super().truncate(fd, position)
        if fd in self._files:
            self._files[fd] = (self._files[fd][0], position)
            self.log.append(("cut", self._files[fd][0], position))

    def write(self, fd: int, pieces: Sequence[Piece]) -> None:
        super().write(fd, pieces)
        data = b"".join(map(bytes, pieces))
        inode, position = self._files[fd]
        self.log.append(("write", inode, (position, data)))
        self._files[fd] = (inode, position + len(data))

    def write_at(self, fd: int, position: int, data: bytes) -> None:
        super().write_at(fd, position, data)
        self.log.append(("write", self._files[fd][0], (position, data)))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.log.append(("sync", self._files[fd][0], None))

    def close(self, fd: int) -> None:
        super().close(fd)
        self._files.pop(fd, None)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._at[target] = self._at.pop(source)
        self.log.append(("rename", source, target))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._at.pop(path, None)
        self.log.append(("unlink", path, None))

    def overwrite(self, path: Path, data: bytes) -> None:
        super().overwrite(path, data)
        if path not in self._at:
            self._open_new(path)
        self.log.append(("write", self._at[path], (0, data)))

    def make_one_folder(self, path: Path) -> None:
        super().make_one_folder(path)
        self.log.append(("mkdir", path, None))

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.log.append(("sync_folder", path, None))

    def note(self, what: str, index: int) -> None:
        """Put into the log that a step of the test began or was acknowledged."""
        self.log.append(("note", what, index))


class Replay:
    """The log replayed up to some moment, and what a power cut at that moment leaves."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inodes: dict[int, Inode] = defaultdict(Inode)
        self._names: list[Name] = []
        self._now: dict[Path, Inode | str] = {}
        self.notes: list[tuple[str, int]] = []

    def step(self, kind: str, a: object, b: object) -> None:
        """Replay one entry of the log."""
        getattr(self, f"_{kind}")(a, b)

    def _note(self, what: str, index: int) -> None:
        self.notes.append((what, index))

    def _change(self, folder: Path, entries: dict[Path, Inode | str | None]) -> None:
        self._names.append(Name(folder, entries))
        for path, inode in entries.items():
            if inode is None:
                self._now.pop(path, None)
            else:
                self._now[path] = inode

    def _create(self, path: Path, number: int) -> None:
        self._change(path.parent, {path: self._inodes[number]})

    def _mkdir(self, path: Path, _: None) -> None:
        self._change(path.parent, {path: "folder"})

    def _unlink(self, path: Path, _: None) -> None:
        self._change(path.parent, {path: None})

    def _rename(self, source: Path, target: Path) -> None:
        inode = self._now[source]
        if source.parent == target.parent:
            self._change(target.parent, {source: None, target: inode})
        else:
            self._change(target.parent, {target: inode})
            self._change(source.parent, {source: None})
            self._names[-1].after = self._names[-2]

    def _write(self, number: int, what: tuple[int, bytes]) -> None:
        self._inodes[number].changes.append(("write", *what))

    def _cut(self, number: int, position: int) -> None:
        self._inodes[number].changes.append(("cut", position, b""))

    def _sync(self, number: int, _: None) -> None:
        self._inodes[number].safe = len(self._inodes[number].changes)

    def _sync_folder(self, folder: Path, _: None) -> None:
        for name in self._names:
            name.safe |= name.folder == folder

    def leave(self, target: Path, keep: float, draw: random.Random) -> None:
        """Write to ``target`` what is left, each unsynced change kept with probability ``keep``."""
        left: dict[Path, Inode | str] = {}
        kept = {id(name) for name in self._names if name.safe or draw.random() < keep}
        kept |= {id(name.after) for name in self._names if id(name) in kept}
        for name in self._names:
            if id(name) in kept:
                for path, inode in name.entries.items():
                    left.pop(path, None) if inode is None else left.__setitem__(path, inode)
        for path in sorted(left):
            place = target / path.relative_to(self._root)
            inode = left[path]
            if not place.parent.is_dir():
                continue  # its folder did not survive
            if isinstance(inode, str):
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(_content(inode, keep, draw))


def _content(inode: Inode, keep: float, draw: random.Random) -> bytes:
    data = bytearray()
    for number, (kind, position, written) in enumerate(inode.changes):
        if number >= inode.safe:
            if draw.random() >= keep:
                if kind == "cut" or draw.random() < 0.5:
                    continue
                written = bytes(data[position : position + len(written)]).ljust(len(written), b"\0")
            elif keep < 1 and draw.random() < 0.5:
                written = written[: draw.randrange(len(written) + 1)]
        if kind == "cut":
            del data[position:]
        data.extend(bytes(max(0, position - len(data))))
        data[position : position + len(written)] = written
    return bytes(data)
