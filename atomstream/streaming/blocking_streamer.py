"""The streamer for scripts, threads and notebooks: :class:`RHEEDStreamer`.

Each method runs the method of the same name of an :class:`AsyncRHEEDStreamer` in an event loop in a separate thread.
"""

from __future__ import annotations

import atexit
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from atomstream.config import Durability, OnFull, WhenUnreachable
from atomstream.records import ClockStatus, Frames, Json, StreamReport
from atomstream.spool import SpoolStatus
from atomstream.streaming.async_streamer import AsyncRHEEDStreamer, check_process
from atomstream.streaming.portal import WAIT_SLICE_S, LoopThread, wait_for_copy, wait_interruptibly
from atomstream.streaming.statistics import StreamerStats
from atomstream.streaming.stream_request import ChunkArguments, FrameArguments, InitializeRequest

if TYPE_CHECKING:
    from atomstream.results import Event
    from atomstream.streaming.result_batch import ResultBatch
    from atomstream.streaming.session import StreamingSession

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

EXIT_WAIT_S: Final = 4.0
"""How long the interpreter's exit waits for frames that are being encoded or written to disk.

There are no uploads at that time: the interpreter refuses to start threads, and name look-ups need them.
"""


def documented_by(verb: Callable[..., Any]) -> Callable[[F], F]:
    """Merge the documentation of the asynchronous method into this one's, so that ``help()`` shows the complete text.

    The order is: summary of ``verb``, the method's own text, the rest of ``verb``.
    """

    def document(method: F) -> F:
        if method.__doc__ and verb.__doc__:  # python -OO removes both
            summary, _, rest = inspect.cleandoc(verb.__doc__).partition("\n\n")
            method.__doc__ = "\n\n".join([summary, inspect.cleandoc(method.__doc__), rest]).rstrip()
        return method

    return document


class RHEEDStreamer:
    """Stream live RHEED frames to a server from a script, a notebook or several threads.

    It has the methods of :class:`AsyncRHEEDStreamer`, as ordinary functions. Any thread may call them. Ctrl-C
    interrupts a call within 0.5 s and loses no accepted frames. Use ``with``, or call :meth:`close` at the end. If
    neither happens, the interpreter's exit writes the accepted frames to disk.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        verbosity: int | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        spool_min_free_bytes: int | None = None,
        spool_retention_s: float | None = None,
        *,
        buffer_bytes: int | None = None,
        on_full: OnFull = "wait",
        full_timeout_s: float | None = None,
        durability: Durability = "memory",
        compression_level: int = 1,
        encoder_threads: int | None = None,
        upload_concurrency: int = 4,
        request_timeout_s: float = 30.0,
        upload_timeout_s: float = 300.0,
        clock_sync: bool | None = None,
        when_unreachable: WhenUnreachable = "record",
    ) -> None:
        self._streamer = AsyncRHEEDStreamer(
            api_key,
            endpoint,
            verbosity,
            spool_dir,
            spool_max_bytes,
            spool_min_free_bytes,
            spool_retention_s,
            buffer_bytes=buffer_bytes,
            on_full=on_full,
            full_timeout_s=full_timeout_s,
            durability=durability,
            compression_level=compression_level,
            encoder_threads=encoder_threads,
            upload_concurrency=upload_concurrency,
            request_timeout_s=request_timeout_s,
            upload_timeout_s=upload_timeout_s,
            clock_sync=clock_sync,
            when_unreachable=when_unreachable,
        )
        self._pid = os.getpid()
        self._loop_thread = LoopThread()
        self._close_lock = threading.Lock()
        _open_streamers.add(self)
        self._call(self._streamer.__aenter__)

    # -- streams ------------------------------------------------------------------------------------------

    @documented_by(AsyncRHEEDStreamer.initialize)
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
        """This call blocks until the server has created the stream; see :meth:`AsyncRHEEDStreamer.initialize`."""
        request = InitializeRequest(
            fps, rotations_per_min, chunk_size, stream_name, physical_sample, project_id, tags, azimuth
        )
        request.warn_if_short(stacklevel=2)
        return self._call(lambda: self._session().initialize(request))

    @documented_by(AsyncRHEEDStreamer.resume)
    def resume(self, data_id: str) -> int:
        """This call blocks until the stream is open; see :meth:`AsyncRHEEDStreamer.resume`."""
        return self._call(lambda: self._streamer.resume(data_id))

    @documented_by(AsyncRHEEDStreamer.push)
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
        """This call blocks until the chunk is copied; see :meth:`AsyncRHEEDStreamer.push`."""
        chunk = ChunkArguments(
            data_id, chunk_idx, frames, capture_start_ms_utc, frame_times_ms, frame_ids, angles_deg, copy
        )
        started = self._session().frames.start_push(chunk)
        if started is None or not wait_for_copy(started):
            self._call(lambda: self._session().frames.push(chunk))

    @documented_by(AsyncRHEEDStreamer.push_frame)
    def push_frame(
        self,
        data_id: str,
        frame: Frames,
        capture_ms_utc: float | None = None,
        frame_id: int | None = None,
        angle_deg: float | None = None,
    ) -> None:
        """The calling thread copies the frame; it blocks only if there is no room. See the asynchronous method."""
        one = FrameArguments(data_id, frame, capture_ms_utc, frame_id, angle_deg)
        if not self._session().frames.try_push_frame(one):
            self._call(lambda: self._session().frames.push_frame(one))

    @documented_by(AsyncRHEEDStreamer.run)
    def run(self, data_id: str, frames_iter: Iterable[Any]) -> None:
        """The calling thread iterates, so only synchronous iterables work here; see :meth:`AsyncRHEEDStreamer.run`."""
        if not isinstance(frames_iter, Iterable):
            raise TypeError(f"run() takes an iterable of frames, not {type(frames_iter).__name__}.")
        frames = self._session().frames
        frames.open_stream(data_id)
        for item in frames_iter:
            self._call(partial(frames.push_item, data_id, item))

    @documented_by(AsyncRHEEDStreamer.flush)
    def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """This call blocks until then; see :meth:`AsyncRHEEDStreamer.flush`."""
        self._call(lambda: self._streamer.flush(data_id, timeout_s))

    @documented_by(AsyncRHEEDStreamer.finalize)
    def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """This call blocks until then; see :meth:`AsyncRHEEDStreamer.finalize`."""
        report = self._call(lambda: self._session().finalize(data_id, drain_timeout_s))
        self._session().warn_about_losses(data_id, report, stacklevel=2)
        return report

    # -- results and annotations --------------------------------------------------------------------------

    @documented_by(AsyncRHEEDStreamer.results)
    def results(self, data_id: str, after: int = 0) -> Iterator[ResultBatch]:
        """This iterator blocks until the next batch arrives; see :meth:`AsyncRHEEDStreamer.results`."""
        batches = self._streamer.results(data_id, after)

        async def next_batch() -> ResultBatch | None:
            return await anext(batches, None)

        try:
            while (batch := self._call(next_batch)) is not None:
                yield batch
        finally:
            self._call(batches.aclose)

    @documented_by(AsyncRHEEDStreamer.latest)
    def latest(self, data_id: str) -> ResultBatch | None:
        """This call does not block; see :meth:`AsyncRHEEDStreamer.latest`."""
        return self._call(lambda: self._streamer.latest(data_id))

    @documented_by(AsyncRHEEDStreamer.mark)
    def mark(self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None) -> Event:
        """This call blocks until then; see :meth:`AsyncRHEEDStreamer.mark`."""
        return self._call(lambda: self._streamer.mark(data_id, label, kind, time_ms_utc))

    @documented_by(AsyncRHEEDStreamer.set_rotation)
    def set_rotation(self, data_id: str, rpm: float) -> Event:
        """This call blocks until the server has stored it; see :meth:`AsyncRHEEDStreamer.set_rotation`."""
        return self._call(lambda: self._streamer.set_rotation(data_id, rpm))

    @documented_by(AsyncRHEEDStreamer.calibrate)
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
        """This call blocks until the server has stored it; see :meth:`AsyncRHEEDStreamer.calibrate`."""
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

    @documented_by(AsyncRHEEDStreamer.set_attributes)
    def set_attributes(self, data_id: str, attributes: Mapping[str, Json]) -> None:
        """This call blocks until the server has stored them; see :meth:`AsyncRHEEDStreamer.set_attributes`."""
        self._call(lambda: self._streamer.set_attributes(data_id, attributes))

    # -- status and close ---------------------------------------------------------------------------------

    @documented_by(AsyncRHEEDStreamer.clock_status)
    def clock_status(self) -> ClockStatus | None:
        """This call does not block; see :meth:`AsyncRHEEDStreamer.clock_status`."""
        return self._call(self._streamer.clock_status)

    @documented_by(AsyncRHEEDStreamer.spool_status)
    def spool_status(self) -> SpoolStatus:
        """This call blocks until the folder is read; see :meth:`AsyncRHEEDStreamer.spool_status`."""
        return self._call(self._streamer.spool_status)

    @documented_by(AsyncRHEEDStreamer.server_id)
    def server_id(self, data_id: str) -> str | None:
        """This call does not block; see :meth:`AsyncRHEEDStreamer.server_id`."""
        return self._call(partial(self._streamer.server_id, data_id))

    @documented_by(AsyncRHEEDStreamer.stats)
    def stats(self) -> StreamerStats:
        """This call does not block; see :meth:`AsyncRHEEDStreamer.stats`."""
        return self._call(self._streamer.stats)

    @documented_by(AsyncRHEEDStreamer.close)
    def close(self, drain_timeout_s: float = 30.0) -> None:
        """This call blocks until then. In a forked child it does nothing; see :meth:`AsyncRHEEDStreamer.close`."""
        if self._pid != os.getpid():
            return
        # A second thread that closes waits for the first one: to stop the loop now would interrupt the first close.
        while not self._close_lock.acquire(timeout=WAIT_SLICE_S):
            pass
        try:
            if self._loop_thread.running:
                self._loop_thread.call(lambda: self._streamer.close(drain_timeout_s))
        finally:
            self._loop_thread.stop()
            _open_streamers.discard(self)
            self._close_lock.release()

    def _start_close(self, drain_timeout_s: float) -> Future[None]:
        return self._loop_thread.start(lambda: self._streamer.close(drain_timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self) -> StreamingSession:
        """Return the running session; raises ClosedError after ``close`` and in a forked child."""
        return self._streamer._current_session()

    def _call(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run ``await verb()`` in the streamer's event loop and wait for its result."""
        check_process(self._pid)
        return self._loop_thread.call(verb)


if RHEEDStreamer.__doc__ and AsyncRHEEDStreamer.__doc__:
    RHEEDStreamer.__doc__ += "\n    Args:\n" + AsyncRHEEDStreamer.__doc__.partition("    Args:\n")[2]

_open_streamers: set[RHEEDStreamer] = set()
"""Streamers that were not closed. Without this reference, a streamer would be collected, and stop working, when the
user's last reference ends."""


def _close_all() -> None:
    # Close all at the same time, so that together they take no longer than the slowest one.
    streamers = [
        streamer
        for streamer in _open_streamers
        if streamer._pid == os.getpid() and streamer._loop_thread.running
    ]
    for streamer, closing in [(streamer, streamer._start_close(EXIT_WAIT_S)) for streamer in streamers]:
        try:
            wait_interruptibly(closing)
        except BaseException as error:  # nothing above an exit hook could handle it
            print(f"atomstream: at exit: {error}", file=sys.stderr)  # noqa: T201  (logging may have ended)
        streamer._loop_thread.stop()


atexit.register(_close_all)
