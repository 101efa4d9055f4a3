"""Makes and opens the archives of a server: in its own folder, or as caches of a store that servers share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomstream.server.archive.damage import StreamDamage
from atomstream.server.archive.opening import open_checked
from atomstream.server.archive.stream_archive import StreamArchive

if TYPE_CHECKING:
    from atomstream.server.ports.store import Store


class Archives:
    """The archives of a server that shares none. Every method blocks."""

    def create(self, folder: Path, about: Mapping[str, Any], damage: StreamDamage) -> StreamArchive:
        """The archive of a new stream; raises as :meth:`.StreamArchive.create`."""
        return StreamArchive.create(folder, about, damage=damage)

    def exists(self, folder: Path) -> bool:
        """Whether there may be a stream of that name."""
        return folder.is_dir()

    def open(self, folder: Path, damage: StreamDamage) -> StreamArchive:
        """The archive of a stream, checked; raises as :func:`.open_checked`."""
        return open_checked(folder, damage)

    def delete_stored(self, data_id: str) -> None:
        """Remove what a store has of a stream that is being deleted; here there is no store."""


class SharedArchives(Archives):
    """The archives of a server whose streams are in ``store``; the folders are caches of it.

    ``copies`` is False if the process that analyses a stream copies its columns and results to the store. Short chunks
    of a new stream are merged into objects of at least ``object_s`` seconds; 0: they are not.
    Methods also raise StoreUnavailableError.
    """

    def __init__(self, store: Store, *, copies: bool = True, object_s: float = 0.0) -> None:
        # Imported here: a server with its own data folder needs none of it.
        from atomstream.server.archive.cached_archive import CachedArchive
        from atomstream.server.archive.shared_stream import SharedStream

        self.store = store
        self._copies = copies
        self._object_s = object_s
        self._stream, self._kind = SharedStream, CachedArchive

    def create(self, folder: Path, about: Mapping[str, Any], damage: StreamDamage) -> StreamArchive:
        """As in the base class, in the store first."""
        shared = self._stream(self.store, folder.name)
        return self._kind.create_shared(
            folder, about, shared, damage=damage, copies=self._copies, object_s=self._object_s
        )

    def exists(self, folder: Path) -> bool:
        """True: whether the store has it is found by opening it."""
        return True

    def open(self, folder: Path, damage: StreamDamage) -> StreamArchive:
        """As in the base class; also raises ObjectMissingError if there is no such stream."""
        shared = self._stream(self.store, folder.name)
        return open_checked(
            folder,
            damage,
            partial(
                self._kind.open_shared,
                folder,
                shared,
                damage=damage,
                copies=self._copies,
                object_s=self._object_s,
            ),
        )

    def delete_stored(self, data_id: str) -> None:
        """Remove all objects of a stream that is being deleted; there may be none."""
        self._stream(self.store, data_id).delete()
