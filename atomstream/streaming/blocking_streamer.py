"""The blocking front door: the async streamer's verbs over one portal thread of its own."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from atomstream.errors import ClosedError
from atomstream.records import ClockStatus, Frames, StreamReport
from atomstream.results import Event
from atomstream.spool import SpoolStatus
from atomstream.streaming.async_streamer import AsyncRHEEDStreamer, StreamerResults
from atomstream.streaming.portal import SLICE_S, LoopThread, completed, result_of
from atomstream.streaming.registration import InitializeRequest
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.statistics import StreamerStats

# The blocking twins of the verbs for results and events.

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

    def mark(self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None) -> Event:
        """Note an event of the stream; see :meth:`AsyncRHEEDStreamer.mark`."""
        return self._call(lambda: self._streamer.mark(data_id, label, kind, time_ms_utc))

    def set_rotation(self, data_id: str, rpm: float) -> Event:
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


EXIT_WAIT_S: Final = 4.0
"""At interpreter exit no name can be looked up; what is being encoded or written to disk gets this long."""


class RHEEDStreamer(BlockingResults):
    """Stream live RHEED frames from a script, a notebook or many threads.

    Takes the arguments of :class:`AsyncRHEEDStreamer` and has its verbs, blocking; they may be called from any
    thread. Ctrl-C comes through at once and loses nothing that was accepted. Close it, or use it in a ``with``.
    """

    _streamer: AsyncRHEEDStreamer

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        verbosity: int | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        spool_min_free_bytes: int | None = None,
        spool_retention_s: float | None = None,
        **settings: Any,
    ) -> None:
        self._streamer = AsyncRHEEDStreamer(
            api_key,
            endpoint,
            verbosity,
            spool_dir,
            spool_max_bytes,
            spool_min_free_bytes,
            spool_retention_s,
            **settings,
        )
        self._pid = os.getpid()
        self._portal = LoopThread()
        self._closing = threading.Lock()
        _live.add(self)
        self._call(self._streamer.__aenter__)

    def initialize(
        self,
        fps: float,
        rotations_per_min: float,
        chunk_size: int,
        stream_name: str | None = None,
        physical_sample: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        azimuth: str | None = None,
    ) -> str:
        """Create a stream; see :meth:`AsyncRHEEDStreamer.initialize`."""
        request = InitializeRequest(
            fps, rotations_per_min, chunk_size, stream_name, physical_sample, project_id, tags, azimuth
        ).warned(stacklevel=2)
        return self._call(lambda: self._streamer.initialize_quietly(request))

    def resume(self, data_id: str) -> int:
        """Go on with a stream that an earlier process left; see :meth:`AsyncRHEEDStreamer.resume`."""
        return self._call(lambda: self._streamer.resume(data_id))

    def push(
        self,
        data_id: str,
        chunk_idx: int,
        frames: Frames,
        capture_start_ms_utc: float | None = None,
        *,
        frame_times_ms: Sequence[float] | None = None,
        frame_ids: Sequence[int] | None = None,
        angles_deg: Sequence[float] | None = None,
        copy: bool = True,
    ) -> None:
        """Hand over one chunk; see :meth:`AsyncRHEEDStreamer.push`."""
        chunk = (data_id, chunk_idx, frames, capture_start_ms_utc)
        more: dict[str, Any] = {
            "frame_times_ms": frame_times_ms, "frame_ids": frame_ids, "angles_deg": angles_deg, "copy": copy
        }  # fmt: skip
        begun = self._streamer.start_push(*chunk, **more)
        if begun is None or not completed(begun):
            self._call(lambda: self._streamer.push(*chunk, **more))

    def push_frame(
        self,
        data_id: str,
        frame: Frames,
        capture_ms_utc: float | None = None,
        frame_id: int | None = None,
        angle_deg: float | None = None,
    ) -> None:
        """Hand over one frame; see :meth:`AsyncRHEEDStreamer.push_frame`.

        Copies on the calling thread; another thread is involved only where there is no room.
        """
        if not self._streamer.try_push_frame(data_id, frame, capture_ms_utc, frame_id, angle_deg):
            self._call(lambda: self._streamer.push_frame(data_id, frame, capture_ms_utc, frame_id, angle_deg))

    def run(self, data_id: str, frames_iter: Iterable[Any]) -> None:
        """Push everything that ``frames_iter`` yields, iterated here; see :meth:`AsyncRHEEDStreamer.run`."""
        if not isinstance(frames_iter, Iterable):
            raise TypeError(f"run() takes an iterable of frames, not {type(frames_iter).__name__}.")
        self._streamer.check_open(data_id)
        for item in frames_iter:
            self._call(partial(self._streamer.push_item, data_id, item))

    def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """Wait until all that was pushed so far is settled; see :meth:`AsyncRHEEDStreamer.flush`."""
        self._call(lambda: self._streamer.flush(data_id, timeout_s))

    def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """Deliver, end and report; see :meth:`AsyncRHEEDStreamer.finalize`."""
        report = self._call(lambda: self._streamer.finalize_quietly(data_id, drain_timeout_s))
        self._streamer.warn_of_losses(data_id, report, stacklevel=2)
        return report

    def clock_status(self) -> ClockStatus | None:
        """See :meth:`AsyncRHEEDStreamer.clock_status`."""
        return self._call(self._streamer.clock_status)

    def spool_status(self) -> SpoolStatus:
        """What waits on disk; see :meth:`AsyncRHEEDStreamer.spool_status`."""
        return self._call(self._streamer.spool_status)

    def stats(self) -> StreamerStats:
        """See :meth:`AsyncRHEEDStreamer.stats`."""
        return self._call(self._streamer.stats)

    def close(self, drain_timeout_s: float = 30.0) -> None:
        """Deliver what was pushed and let go of everything; see :meth:`AsyncRHEEDStreamer.close`."""
        if self._pid != os.getpid():
            return
        # A second thread that closes waits for the first: stopping the portal would cut its drain short.
        while not self._closing.acquire(timeout=SLICE_S):
            pass
        try:
            if self._portal.running:
                self._portal.call(lambda: self._streamer.close(drain_timeout_s))
        finally:
            self._portal.stop()
            _live.discard(self)
            self._closing.release()

    def _begin_close(self, drain_timeout_s: float) -> Future[None]:
        return self._portal.start(lambda: self._streamer.close(drain_timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, verb: Callable[[], Awaitable[T]]) -> T:
        if self._pid != os.getpid():
            raise ClosedError(
                "This streamer belongs to the process that made it; a forked child can't use it (its parent goes "
                "on unharmed). Make a new RHEEDStreamer in the child."
            )
        return self._portal.call(verb)


_live: set[RHEEDStreamer] = set()
"""Streamers not closed: held, so that what was pushed goes on its way even when the name is gone."""


def _close_all() -> None:
    # All of them begin before the first is waited for: together they may take no longer than one.
    mine = [streamer for streamer in _live if streamer._pid == os.getpid() and streamer._portal.running]
    for streamer, closing in [(streamer, streamer._begin_close(EXIT_WAIT_S)) for streamer in mine]:
        try:
            result_of(closing)
        except BaseException as error:  # an exit hook has nobody above it who could act
            print(f"atomstream: at exit: {error}", file=sys.stderr)  # noqa: T201
        streamer._portal.stop()


atexit.register(_close_all)
