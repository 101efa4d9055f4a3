"""How an archive writes its files: under a temporary name in ``incoming/``, then renamed into place.

``incoming/`` is on the file system of the targets but outside the Zarr group, so no reader of the group lists a
temporary file. The names are random and of one pattern, so :meth:`ArchiveFiles.remove_leftovers` removes what a crash
left there without touching the files of others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from atomstream.errors import StreamError
from atomstream.records import Piece
from atomstream.server.archive.damage import StreamDamage
from atomstream.system.files import LOCAL, FileSystem

_TEMPORARY: Final = re.compile(r"[0-9a-f]{32}\.part")

SET_ASIDE: Final = "damaged"
"""The folder to which files and folders are moved that occupy the path of an archive's own file: for example a folder
where a file belongs."""


class ArchiveDeletedError(StreamError):
    """The stream was deleted while something was to be written into its archive."""


class ArchiveFiles:
    """The temporary folder of one archive, the :class:`FileSystem` for all its writes, and what is damaged in it."""

    def __init__(
        self, incoming: Path, file_system: FileSystem = LOCAL, damage: StreamDamage | None = None
    ) -> None:
        self.file_system: Final = file_system
        self.damage: Final = damage or StreamDamage(name=incoming.parent.name)
        self._incoming = incoming
        self._checked = False
        self.deleted = False
        """True once the stream was deleted. Then nothing may be written, because this would create its folder again."""

    def note_damage(self, path: Path, what: str) -> None:
        """Note that a file of the archive is damaged; ``what`` is the consequence, without the name."""
        self.damage.add(self._name(path), what)

    def note_repaired(self, path: Path) -> None:
        """Remove the note about a file that was replaced by an undamaged one."""
        self.damage.remove(self._name(path))

    def _name(self, path: Path) -> str:
        top = self._incoming.parent
        name = path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name
        return name.encode("utf-8", "backslashreplace").decode()

    def clear_way(self, path: Path, *, folder: bool = False) -> None:
        """Move away whatever prevents a file, or a ``folder``, at ``path``; its content is kept in ``damaged/``.

        Links stay: the caller refuses or replaces them.

        Raises:
            OSError: it can't be moved.
        """
        top = self._incoming.parent
        for one in reversed([path, *path.parents][: len(path.parts) - len(top.parts)]):
            try:
                mode = one.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return
            wanted = stat.S_ISDIR if folder or one != path else stat.S_ISREG
            if not wanted(mode) and not stat.S_ISLNK(mode):
                self._set_aside(one)
                return

    def _set_aside(self, path: Path) -> None:
        folder, number = self._incoming.parent / SET_ASIDE, 1
        self.file_system.make_folder(folder, durable=False, inside=folder.parent)
        name = self._name(path).replace("/", "_")
        while (target := folder / f"{name}-{number}").exists():
            number += 1
        self.file_system.rename(path, target)
        self.note_damage(path, f"something else had this name; it was moved to {SET_ASIDE}/{target.name}")

    def temporary_path(self) -> Path:
        """A new file name in ``incoming/``; makes the folder where it is missing."""
        self.check_not_deleted()
        # Once is enough against links: nobody else can write into an open archive's private folder.
        inside = None if self._checked else self._incoming.parent
        self.file_system.make_folder(self._incoming, durable=False, inside=inside)
        self._checked = True
        return self._incoming / f"{os.urandom(16).hex()}.part"

    def check_not_deleted(self) -> None:
        """Raises ArchiveDeletedError if the stream was deleted."""
        if self.deleted:
            raise ArchiveDeletedError(f"Stream {self._incoming.parent.name} was deleted.")

    def remove_leftovers(self) -> None:
        """Remove the temporary files that a crash left; other files in the folder stay."""
        if not self._incoming.is_dir():
            return
        for path in self._incoming.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                with suppress(OSError):  # a file that stays is harmless
                    self.file_system.unlink(path)

    def write_atomic(self, target: Path, data: bytes, *, durable: bool = False) -> None:
        """Put ``data`` at ``target``, whole or not at all, for readers and across a power cut.

        Without ``durable`` a power cut may bring the previous content back: the folder is not synced.

        Raises:
            OSError: ``target`` is then unchanged.
        """
        self.file_system.write_atomic(target, [data], temporary=self.temporary_path(), durable=durable)

    def write_copy(self, target: Path, pieces: Iterable[Piece]) -> None:
        """Put a copy of what is stored elsewhere at ``target``, piece by piece as they come, whole or not at all.

        It is not synced: after a power cut it may have any content, so it must be checked when it is read.

        Raises:
            OSError: ``target`` is then unchanged; as after an exception of ``pieces``.
        """
        disk, source = self.file_system, self.temporary_path()
        try:
            fd = disk.create(source)
            try:
                for piece in pieces:
                    disk.write(fd, [piece])
            finally:
                disk.close(fd)
            disk.rename(source, target)
        except BaseException:
            with suppress(OSError):
                disk.unlink(source)
            raise
