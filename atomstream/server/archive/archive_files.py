"""How an archive writes its files: under a temporary name in ``incoming/``, then renamed into place.

``incoming/`` is on the file system of the targets but outside the Zarr group, so no reader of the group lists a
temporary file. The names are random and of one pattern, so :meth:`ArchiveFiles.remove_leftovers` removes what a crash
left there without touching the files of others.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from atomstream.system.files import LOCAL, FileSystem

_TEMPORARY: Final = re.compile(r"[0-9a-f]{32}\.part")


class ArchiveFiles:
    """The temporary folder of one archive, and the :class:`FileSystem` that all its writes go through."""

    def __init__(self, incoming: Path, file_system: FileSystem = LOCAL) -> None:
        self.file_system: Final = file_system
        self._incoming = incoming
        self._checked = False

    def temporary_path(self) -> Path:
        """A new file name in ``incoming/``; makes the folder where it is missing."""
        # Once is enough against links: nobody else can write into an open archive's private folder.
        inside = None if self._checked else self._incoming.parent
        self.file_system.make_folder(self._incoming, durable=False, inside=inside)
        self._checked = True
        return self._incoming / f"{os.urandom(16).hex()}.part"

    def remove_leftovers(self) -> None:
        """Remove the temporary files that a crash left; other files in the folder stay."""
        if not self._incoming.is_dir():
            return
        for path in self._incoming.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                with suppress(OSError):  # harmless where it stays
                    self.file_system.unlink(path)

    def write_atomic(self, target: Path, data: bytes, *, durable: bool = False) -> None:
        """Put ``data`` at ``target``, whole or not at all, for readers and across a power cut.

        Without ``durable`` a power cut may bring the previous content back: the folder is not synced.

        Raises:
            OSError: ``target`` is then unchanged.
        """
        self.file_system.write_atomic(target, [data], temporary=self.temporary_path(), durable=durable)
