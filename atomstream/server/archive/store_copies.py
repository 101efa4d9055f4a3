"""What a server keeps in the store, beside the chunks, for readers of a growing stream: copies of its documents,
columns and results, and objects of merged chunks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.chunk_merger import ChunkMerger
from atomstream.server.archive.copied_files import CopiedFiles
from atomstream.server.archive.merged_documents import published
from atomstream.server.archive.metadata import ENDED_STATUSES
from atomstream.server.archive.mirror import GROUP, Mirror
from atomstream.server.archive.shared_stream import SharedStream

RESULTS_COPY_S: Final = 30.0
"""Least time between two copies of the columns of results, and of the arrays' own documents, of a growing stream to the
store, in s."""

_ENDING: Final = frozenset({*ENDED_STATUSES, "stream_finalizing"})
"""Statuses of a stream whose client has sent everything: all chunks are merged."""


class StoreCopies:
    """The copies of the stream in ``folder``. Thread-safe. Methods block, and may raise StoreUnavailableError: calling
    them again continues.

    ``status()`` is the stream's, ``follow()`` adds all chunks of the store to ``index``.
    """

    def __init__(
        self,
        folder: Path,
        files: ArchiveFiles,
        index: ChunkIndex,
        shared: SharedStream,
        status: Callable[[], object],
        follow: Callable[[], object],
    ) -> None:
        self._files = files
        self._index = index
        self._shared = shared
        self._status = status
        self._follow = follow
        self._copying = threading.Lock()
        self._copied = CopiedFiles(folder, index.group)
        self._results_copied_at = -math.inf
        self.results_left = False
        """True if the last :meth:`send_newest` has left out the columns of results: it is to be called again."""
        self.may_replace: Callable[[], None] = lambda: None
        """Called before a copy replaces that of another process; an exception from it prevents that."""
        self._merger = ChunkMerger(shared, index.stored, index.shard_path)
        self._mirror = Mirror(folder, shared, self._catch_up, self._check_replacing, self)

    def merge_chunks(self) -> None:
        """Merge all short chunks that are stored, also those of incomplete objects."""
        with self._copying:
            self._merge(final=True)

    def send_newest(self, *, everything: bool) -> None:
        """Merge the short chunks that are due, then copy documents and the ends of the columns.

        The columns of results are copied only each ``RESULTS_COPY_S``, or with ``everything``: their last files are
        sent whole each time, and are larger than the frames of a small stream. The same holds for the arrays' own
        documents, of which the group's document has copies.
        """
        with self._copying:
            now = time.monotonic()
            everything = everything or now - self._results_copied_at >= RESULTS_COPY_S
            self._merge()
            with self._index.writing:
                documents = self._copied.documents() if everything else (GROUP,)
                names = [*self._copied.last_columns(results=everything), *documents]
            self._mirror.send(names)
            self.results_left = not everything
            if everything:
                self._results_copied_at = now

    def send_all(self) -> None:
        """Merge all chunks, and copy all documents, columns and results of a stream that has ended."""
        with self._copying:
            self._merge(final=True)
            self._mirror.send(
                (*self._copied.all_columns(), *self._copied.documents(), *self._copied.results())
            )

    def send_kept_frames(self) -> None:
        """Copy which frames a thinned stream has left. Only the server that thins the stream does so."""
        with self._copying:
            self._mirror.send(self._copied.kept_frames())

    def _merge(self, *, final: bool = False) -> None:
        geometry = self._index.geometry
        if geometry is not None:
            self._files.check_not_deleted()
            self._merger.merge(geometry, final=final or self._status() in _ENDING)

    def _check_replacing(self) -> None:
        self.may_replace()

    def _catch_up(self) -> None:
        """Take over all that other processes have stored."""
        self._follow()
        if self._shared.grid.n_chunks > 1:
            self._merger.reload()

    # -- the documents as they are in the store, where chunks may be merged ------------------------------

    def version(self) -> int:
        """The number of objects that readers may read; -1: all."""
        length = self._length()
        return -1 if length is None else length

    def content(self, name: str, content: bytes) -> bytes:
        """The document for readers of the store."""
        return published(name, content, self._shared.grid, self._length())

    def _length(self) -> int | None:
        return None if self._status() in ENDED_STATUSES else self._merger.length
