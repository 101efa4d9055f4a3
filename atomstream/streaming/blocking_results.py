"""The blocking twins of the verbs for results and events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from atomstream.streaming.batch import ResultBatch, StreamEvent
from atomstream.streaming.results import StreamerResults

T = TypeVar("T")


class BlockingResults:
    """Verbs of a facade whose ``_call`` runs them on ``_streamer``'s loop."""

    _streamer: StreamerResults

    def _call(self, verb: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError

    def results(self, data_id: str, after: int = 0) -> Iterator[ResultBatch]:
        """Live results as they are made; see :meth:`AsyncRHEEDStreamer.results`."""
        batches = self._streamer.results(data_id, after)

        async def following() -> ResultBatch | None:
            return await anext(batches, None)

        try:
            while (batch := self._call(following)) is not None:
                yield batch
        finally:
            self._call(batches.aclose)

    def latest(self, data_id: str) -> ResultBatch | None:
        """The newest batch, without waiting; see :meth:`AsyncRHEEDStreamer.latest`."""
        return self._call(lambda: self._streamer.latest(data_id))

    def mark(
        self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None
    ) -> StreamEvent:
        """Note an event of the stream; see :meth:`AsyncRHEEDStreamer.mark`."""
        return self._call(lambda: self._streamer.mark(data_id, label, kind, time_ms_utc))

    def set_rotation(self, data_id: str, rpm: float) -> StreamEvent:
        """Say that the rotation changed; see :meth:`AsyncRHEEDStreamer.set_rotation`."""
        return self._call(lambda: self._streamer.set_rotation(data_id, rpm))
