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

    def calibrate(
        self,
        data_id: str,
        *,
        beam_energy: float | None = None,
        screen_sample_distance: float | None = None,
        px_per_mm: float | None = None,
        incidence_deg: float | None = None,
        layer_thickness_nm: float | None = None,
        layer_unit: str | None = None,
        miller_n: float | None = None,
        reference_spacing_px: float | None = None,
    ) -> None:
        """Say what turns pixels into lengths; see :meth:`AsyncRHEEDStreamer.calibrate`."""
        self._call(
            lambda: self._streamer.calibrate(
                data_id,
                beam_energy=beam_energy,
                screen_sample_distance=screen_sample_distance,
                px_per_mm=px_per_mm,
                incidence_deg=incidence_deg,
                layer_thickness_nm=layer_thickness_nm,
                layer_unit=layer_unit,
                miller_n=miller_n,
                reference_spacing_px=reference_spacing_px,
            )
        )
