"""The archive of a stream in a store that several servers share: the store is authoritative, the local folder is a
cache.

A chunk is stored in the store first, created once, and then in the folder: so whichever server receives a chunk, one
of them stores it, and the same chunk with other frames is refused by each. The folder may be removed at any moment
while no server uses it. Shards that are not in it are fetched when they are read. Everything that reads an archive
works on the folder as on the data folder of a single server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from atomstream.errors import ShardError, StreamError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.records import Piece
from atomstream.server.archive.analysis_note import AnalysisNote
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.chunk_index import ChunkIndex, extrapolated_origin
from atomstream.server.archive.copied_files import ANALYSIS, POSITION, in_order
from atomstream.server.archive.damage import StreamDamage
from atomstream.server.archive.merged_chunks import grid_for
from atomstream.server.archive.merged_documents import FRAMES_DOCUMENT, without_frames
from atomstream.server.archive.metadata import (
    ABOUT,
    MERGED,
    ORIGIN,
    RUNNING,
    geometry_in,
    lost_in,
    origin_in,
    read_about_file,
)
from atomstream.server.archive.mirror import GROUP
from atomstream.server.archive.records import Geometry, UploadClaims
from atomstream.server.archive.shard_file import Frame, ShardFile, compare
from atomstream.server.archive.shared_index import SharedIndex
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.shared_thinning import SharedThinnedFrames, is_planned
from atomstream.server.archive.store_copies import StoreCopies
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import ABOUT_KEY, KEPT, ThinnedFrames
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES, ZarrGroup
from atomstream.server.ports.store import ObjectMissingError
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.own_files import LONGEST


class CachedArchive(StreamArchive):
    """A :class:`StreamArchive` that is a cache of ``shared``; made by :meth:`create_shared` or :meth:`open_shared`.

    Methods that change it may raise StoreUnavailableError: the same call may succeed later.

    With ``copies`` False another process analyses the stream, and copies documents, columns and results to the store.
    Those in this folder may be older, and are not copied.

    The first chunk of a stream decides how many are merged into one object in the store: so many that they have
    ``object_s`` seconds, if each has less than half of that.
    """

    is_cache: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        shared: SharedStream,
        file_system: FileSystem = LOCAL,
        damage: StreamDamage | None = None,
        *,
        copies: bool = True,
        object_s: float = 0.0,
    ) -> None:
        self.shared = shared
        self._copies = copies
        self._object_s = object_s
        shared.note_description(about)
        self._note = AnalysisNote(shared)
        super().__init__(folder, about, file_system, damage)
        self.reads_all = False
        """True if all frames are read here soon after they are stored: then :meth:`follow` copies the shard of the
        next chunk with one request, instead of three for its ends and one for the rest later."""
        self._following = threading.Lock()
        self._followed = IndexSet()
        self._followed_lock = threading.Lock()
        self.store_copies = StoreCopies(
            folder,
            self.files,
            self._index,
            shared,
            lambda: self._about.get("status"),
            lambda: self.follow(all_chunks=True),
        )

    def _make_index(self, group: ZarrGroup) -> ChunkIndex:
        return SharedIndex(group, self._attributes, self.shared, lambda: origin_in(self._about))

    def _make_thinned(self) -> ThinnedFrames:
        self._shared_thinned = SharedThinnedFrames(
            self._index,
            self.files,
            self._stripes,
            self.shared,
            self._send_kept,
            self._fetch_kept,
        )
        return self._shared_thinned

    @classmethod
    def create_shared(
        cls,
        folder: Path,
        about: Mapping[str, Any],
        shared: SharedStream,
        file_system: FileSystem = LOCAL,
        damage: StreamDamage | None = None,
        *,
        copies: bool = True,
        object_s: float = 0.0,
    ) -> CachedArchive:
        """Create a new stream in the store, and its folder.

        Raises:
            FileExistsError: there is a stream with this id. TypeError, ValueError: ``about`` is not JSON.
        """
        json.dumps(about, allow_nan=False)
        shared.create_about(about)
        archive = cls(folder, dict(about), shared, file_system, damage, copies=copies, object_s=object_s)
        archive._create()
        return archive

    @classmethod
    def open_shared(
        cls,
        folder: Path,
        shared: SharedStream,
        file_system: FileSystem = LOCAL,
        damage: StreamDamage | None = None,
        *,
        copies: bool = True,
        object_s: float = 0.0,
    ) -> CachedArchive:
        """Open a stream of the store; a folder that is missing is filled from it first.

        Raises:
            ObjectMissingError: there is no such stream. StreamError: its description is damaged.
            StoreUnavailableError: the store can't be reached; the folder is as it was.
        """
        about = shared.read_about()
        cls._refuse_links(folder)
        archive = cls(folder, about, shared, file_system, damage, copies=copies, object_s=object_s)
        file_system.make_folder(archive._index.group.folder, durable=False)
        if not (folder / ABOUT).is_file():
            archive._fill()
        elif archive._was_thinned(_thinning_in(folder)):
            archive._drop_thinned()
            archive._write_about()
        geometry = geometry_in(about)
        if geometry is not None and not (archive._index.group.folder / FRAMES / DOCUMENT).exists():
            archive._index.group.add_frames(geometry)  # another server has stored the first chunk
        archive._recover()
        return archive

    def _fill(self) -> None:
        """Copy documents, columns and results into the empty folder; its description is written last.

        The process that analyses the stream may write meanwhile, and the position states which of its records need not
        be read again. So no file may be older than one before it in this order: the position (which is written last),
        the records, documents, columns.
        """
        self.flush_metadata()
        position = self._fetched(POSITION)
        for name in in_order(self.shared.names(ANALYSIS)):
            self._restore(name, self._fetched(name))
        arrays = [name for name in self.shared.listing().others if name.startswith("frames.zarr/")]
        for name in sorted(arrays, key=lambda name: (not name.endswith(DOCUMENT), name != GROUP)):
            content = self._fetched(name)
            if self.shared.grid.n_chunks > 1 and name in (GROUP, FRAMES_DOCUMENT):
                # In this folder each chunk has its own file, so the description of the array of frames is written anew.
                content = without_frames(content) if name == GROUP and content is not None else None
            self._restore(name, content)
        self._restore(POSITION, position)
        self._write_about()

    def _fetched(self, name: str) -> bytes | None:
        with suppress(ObjectMissingError):
            return self.shared.store.fetch(self.shared.key(name), most=LONGEST)
        return None

    def _restore(self, name: str, content: bytes | None) -> None:
        if content is not None:
            path = self.folder / name
            self._file_system.make_folder(path.parent, durable=False, inside=self.folder)
            self.files.write_atomic(path, content)

    # -- the description ---------------------------------------------------------------------------------

    def update_about(self, **changes: Any) -> None:
        """Change the description, in the store and then here; what other servers changed meanwhile is kept."""
        json.dumps(changes, allow_nan=False)
        with self._index.writing:
            self.files.check_not_deleted()
            self._adopt(self._or_deleted(lambda: self.shared.change_about(self._about, changes)))

    def refresh_about(self) -> bool:
        """Read the description again; True if another server has changed it.

        Raises:
            ArchiveDeletedError: another server has deleted the stream.
        """
        present = self._or_deleted(self.shared.read_about)
        with self._index.writing:
            before = self._about
            if present == before:
                return False
            self._adopt(present)
            if self._was_thinned(before.get(ABOUT_KEY)):
                self._drop_thinned()
            return True

    def _adopt(self, about: dict[str, Any]) -> None:
        self._about = about
        self._lost = lost_in(about)
        self._write_about()
        self._publish_soon()
        self._index.sync_if_due()

    def _or_deleted(self, call: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = call()
        except ObjectMissingError:
            raise ArchiveDeletedError(f"Stream {self.shared.data_id} was deleted.") from None
        return found

    def mark_lost(self, indices: IndexSet) -> None:
        """As in the base class; indices that other servers have listed are kept."""
        self.refresh_about()
        super().mark_lost(indices)

    # -- chunks ------------------------------------------------------------------------------------------

    def _share(self, claims: UploadClaims, body: Path) -> bool:
        if self._about.get("geometry") is None or origin_in(self._about) is None:
            origin_ms = self._index.origin_ms  # only streams of earlier versions have one
            if origin_ms is None:
                first = (claims.index, claims.chunk_size, claims.start_unix_ms, claims.fps)
                origin_ms = extrapolated_origin(*first)
            geometry = Geometry.of(claims)
            changes: dict[str, Any] = {"geometry": msgspec.to_builtins(geometry), ORIGIN: origin_ms}
            grid = grid_for(geometry, claims.fps, self._object_s)
            if grid.n_chunks > 1 and self._about.get("geometry") is None:
                changes[MERGED] = grid.n_chunks
            self.update_about(**changes)
        if geometry_in(self._about) != Geometry.of(claims):
            raise self._other_geometry(claims)
        shard = body.read_bytes()
        if self.shared.create_chunk(claims.index, shard):
            return True
        return not self._use_stored(claims, body, shard)

    def _use_stored(self, claims: UploadClaims, body: Path, shard: bytes) -> bool:
        """Replace ``body`` by the chunk that is stored, if its frames are equal; False if that one was damaged."""
        stored = self.incoming()
        try:
            self.files.write_copy(stored, self.shared.chunk_pieces(claims.index))
            with ShardFile(body, claims.dims, claims.dtype, claims.chunk_size) as new:
                comparison = compare(stored, new, claims.chunk_size)
            if comparison == "different":
                raise self._conflict(claims, "is stored already, with other frames")
            if comparison == "equal":
                self._file_system.rename(stored, body)
                return True
            self.shared.replace_chunk(claims.index, shard)
            return False
        finally:
            self._file_system.unlink(stored)

    def local_shard(self, index: int) -> Path:
        """As in the base class; a shard that is not in the folder is fetched from the store."""
        path = self.shard_file(index)
        return path if path.is_file() else self._fetch_shard(index, path)

    def _read_chunk(
        self, index: int, geometry: Geometry, places: list[int], out: Frame, threads: int
    ) -> None:
        """As in the base class; a damaged copy in the folder is fetched again, and its frames are read again."""
        try:
            super()._read_chunk(index, geometry, places, out, threads)
        except ShardError:
            path = self._fetch_shard(index, self.shard_file(index))
            self.files.note_repaired(path)
            super()._read_chunk(index, geometry, places, out, threads)

    def _fetch_shard(self, index: int, path: Path) -> Path:
        try:
            self._copy_shard(index, path)
        except ObjectMissingError as error:
            raise ShardError(str(error)) from None
        return path

    def _copy_shard(self, index: int, path: Path) -> None:
        """Copy a shard from the store into the folder, and those that are merged with it; raises ObjectMissingError."""
        if self.shared.grid.n_chunks > 1:
            found = self.shared.chunk_object(index)
            self._write_shard(path, iter([found.shard(index)]))
            for other in found.chunks:  # they are read soon, and would be requested again
                if not (its_path := self.shard_file(other)).is_file():
                    self._write_shard(its_path, iter([found.shard(other)]))
            return
        self._write_shard(path, self.shared.chunk_pieces(index))

    def _write_shard(self, path: Path, pieces: Iterator[Piece]) -> None:
        first = next(pieces, b"")  # the request: a missing shard leaves no folder
        self.files.check_not_deleted()
        self._file_system.make_folder(path.parent, durable=False, inside=self._index.group.shards)
        self.files.write_copy(path, chain([first], pieces))

    def merge_chunks(self) -> None:
        """As in the base class; may raise StoreUnavailableError."""
        self.store_copies.merge_chunks()

    def follow(self, *, all_chunks: bool = False, last: int = MAX_CHUNK_INDEX) -> list[int]:
        """Add the chunks that other servers have stored since; returns their indices.

        Those that follow the last known one are looked for one by one, up to chunk ``last``; with ``all_chunks`` the
        store is listed, which finds those in gaps too.
        """
        geometry = self._index.geometry or self._shared_geometry()
        if geometry is None:
            return []
        with self._following:  # a second caller has nothing left to request
            listed = self.shared.listing().chunks - self.stored() if all_chunks else ()
            new = [index for index in listed if self._follow_one(index, geometry)]
            following = self.stored().end
            while following <= last and self._follow_one(
                following, geometry, whole=self.reads_all and not new
            ):
                new.append(following)
                following += 1
        return new

    def _follow_one(self, index: int, geometry: Geometry, *, whole: bool = False) -> bool:
        """Add a chunk, if it is in the store; with ``whole`` its shard is copied, otherwise only its ends are read."""
        try:
            if whole:
                self._copy_shard(index, self.shard_file(index))
                stamps = self._index.read_stamps(index)
            else:
                stamps = self.shared.stamps(index, geometry)
        except ObjectMissingError:
            return False
        except ShardError as error:
            self.note_unreadable(index, str(error))
            return False
        self._index.add(index, stamps)
        self._shared_thinned.note_followed(index)
        with self._followed_lock:
            self._followed.add(index)
        return True

    @property
    def has_followed(self) -> bool:
        """Whether :meth:`pop_followed` has any."""
        return bool(self._followed)

    def pop_followed(self) -> IndexSet:
        """Remove and return the chunks that :meth:`follow` has added since the last call of this method.

        Copies to the store, requests and the end of a stream follow it, too.
        """
        with self._followed_lock:
            taken, self._followed = self._followed, IndexSet()
        return taken

    def _shared_geometry(self) -> Geometry | None:
        """The geometry that another server has set with the first chunk."""
        self.refresh_about()
        geometry = geometry_in(self._about)
        if geometry is not None:
            self._index.set_geometry(geometry)
        return geometry

    # -- thinned by another server -----------------------------------------------------------------------

    def note_analysed_again(self) -> None:
        """As in the base class, in the store; may raise StoreUnavailableError."""
        self._note.renew()

    def remove_analysis_note(self) -> None:
        """As in the base class; may raise StoreUnavailableError."""
        self._note.remove()

    def is_analysed_again(self) -> bool:
        """As in the base class; what other processes have noted in the store counts, too."""
        if (self._copies and super().is_analysed_again()) or self._note.any():
            return True
        with suppress(ObjectMissingError):
            self.shared.store.head(self.shared.key(RUNNING))
            return True
        return False

    def _was_thinned(self, before: Any) -> bool:
        """True if frames were removed since the description stated ``before`` about the thinning."""
        return is_planned(self._about) and self._about[ABOUT_KEY] != before

    def _drop_thinned(self) -> None:
        """Copy from the store which frames are left, and remove the folder's shards, which still contain all frames."""
        self._fetch_kept()
        for shard in self._index.group.shards.glob("*/0/0"):
            self._file_system.unlink(shard)

    def _fetch_kept(self) -> None:
        kept = f"{self._index.group.folder.name}/{KEPT}"
        for name in sorted(self.shared.names(kept), key=lambda name: name.endswith(DOCUMENT)):
            self._restore(name, self._fetched(name))
        with self._index.writing:
            self._index.group.reload(KEPT)

    def _send_kept(self) -> None:
        self.store_copies.send_kept_frames()

    # -- copies for other readers ------------------------------------------------------------------------

    def finish(self) -> None:
        """As in the base class; then the store has all documents, columns and results too, if ``copies``."""
        self.follow(all_chunks=True)
        super().finish()
        if self._copies:
            self.store_copies.send_all()

    def mirror(self, *, everything: bool = False) -> None:
        """Copy to the store what readers of the growing stream need: see :meth:`StoreCopies.send_newest`.

        Without effect if another process copies.

        Raises:
            StoreUnavailableError: the store can't be reached; calling it again continues.
        """
        if self._copies:
            self.store_copies.send_newest(everything=everything)

    def delete(self, target: Path) -> None:
        """As in the base class, but first in the store, where the description is removed before the other objects."""
        self.shared.delete()
        super().delete(target)


def _thinning_in(folder: Path) -> Any:
    """The entry about thinning in a folder's description; None if it can't be read."""
    try:
        return read_about_file(folder).get(ABOUT_KEY)
    except StreamError:
        return None
