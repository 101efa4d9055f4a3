"""The list of the chunks of a stream that are in a store which several servers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final

from atomstream.errors import ShardError
from atomstream.server.archive.chunk_index import ChunkIndex, Stamps
from atomstream.server.archive.records import ChunkTimes
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.zarr_group import ZarrGroup
from atomstream.server.ports.store import ObjectMissingError

_READERS: Final = 8
_AT_ONCE: Final = 64
"""Number of chunks whose times are requested at the same time."""


class SharedIndex(ChunkIndex):
    """The index of the chunks that are in the store, whether or not their shards are in the folder.

    ``described_origin()`` returns the zero of time in the stream's description, None if it has none yet.
    """

    def __init__(
        self,
        group: ZarrGroup,
        attributes: Callable[[], Mapping[str, Any]],
        shared: SharedStream,
        described_origin: Callable[[], float | None],
    ) -> None:
        super().__init__(group, attributes)
        self._shared = shared
        self._described_origin = described_origin

    def _recorded_origin(self) -> float | None:
        """As in the base class; None, so that all times are written again, if the stream's description has another."""
        recorded, described = super()._recorded_origin(), self._described_origin()
        return recorded if described in (None, recorded) else None

    def _extrapolated_origin(self, chunks: Stamps) -> float:
        """The origin of time in the stream's description. It is not computed, because each server receives another
        chunk first."""
        described = self._described_origin()
        return super()._extrapolated_origin(chunks) if described is None else described

    def _find_chunks(self) -> set[int]:
        # While the store is unreachable, do not use the shards of the folder alone: it has only some of them, and the
        # others would count as missing for as long as the archive is open.
        return set(self._shared.listing().chunks)

    def _read_stamps(self, indices: list[int]) -> Iterator[tuple[int, ChunkTimes]]:
        """As in the base class, several at once: each takes some requests to the store."""
        if len(indices) <= 1:
            yield from super()._read_stamps(indices)
            return
        with ThreadPoolExecutor(_READERS, thread_name_prefix="atomstream-stamps") as threads:
            read = partial(self._read_one, super()._read_stamps)
            for first in range(0, len(indices), _AT_ONCE):
                for found in threads.map(read, indices[first : first + _AT_ONCE]):
                    yield from found

    @staticmethod
    def _read_one(
        read: Callable[[list[int]], Iterator[tuple[int, ChunkTimes]]], index: int
    ) -> list[tuple[int, ChunkTimes]]:
        return list(read([index]))

    def read_stamps(self, index: int) -> ChunkTimes:
        """As in the base class; from the store if the shard is not in the folder, or damaged there."""
        with suppress(FileNotFoundError, ShardError):
            return super().read_stamps(index)
        assert self.geometry is not None
        try:
            stamps = self._shared.stamps(index, self.geometry)
        except ObjectMissingError as error:
            raise FileNotFoundError(str(error)) from None
        if stamps.dims[1:] != (self.geometry.height, self.geometry.width):
            raise ShardError(f"Chunk {index} has frames of another shape than the stream.")
        return stamps
