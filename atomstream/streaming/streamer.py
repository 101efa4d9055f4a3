"""The async front door: :class:`AsyncRHEEDStreamer`, its verbs; its life is in :mod:`.life`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from atomstream.config import finite
from atomstream.pipeline.filler import Shot
from atomstream.pipeline.landing import Offer
from atomstream.records import FrameMeta, Frames, StreamReport
from atomstream.streaming import frames as checks
from atomstream.streaming.arguments import InitializeRequest
from atomstream.streaming.feeding import items_of, split
from atomstream.streaming.results import StreamerResults


class AsyncRHEEDStreamer(StreamerResults):
    """Stream live RHEED frames from an asyncio application.

    Belongs to the event loop of its first awaited verb; may be entered and left in different tasks.
    ``start_push`` and ``try_push_frame`` may be called from any thread.

    Args:
        api_key: the server's key; else ``$ATOMSTREAM_API_KEY``.
        endpoint: the server; else ``$ATOMSTREAM_ENDPOINT``, else the hosted service.
        verbosity: 0 errors, 1 warnings, 2 progress, 3 all on stderr; None leaves logging alone.
        spool_dir: where chunks wait on disk for the server; else ``$ATOMSTREAM_SPOOL_DIR``, else the user's
            state folder. What an earlier process left there for this endpoint is delivered as well.
        spool_max_bytes: most that all processes together keep there; default 20 GB or a tenth of the free
            disk, the smaller.
        spool_min_free_bytes: left free on that disk; 512 MiB by default.
        spool_retention_s: age at which undelivered chunks are given up; None: never.
        buffer_bytes: ceiling of frames held in memory, raw and encoded; default 512 MiB or a quarter of RAM.
        on_full: what ``push`` does when that is reached: wait, drop_newest, drop_oldest or raise.
        full_timeout_s: longest wait of ``on_full="wait"``; None waits without limit.
        durability: when ``push`` returns: ``"memory"``, once the chunk is copied; ``"disk"``, once it would
            survive a power cut, or the server has it.
        compression_level: how small, as zstd counts it, -50 to 22; 1 by default. From 0 up shards are at most
            1 % larger than zstd's own level makes them, often smaller and quicker.
        encoder_threads: compressors; one a core by default, at most 4.
        upload_concurrency: uploads at once.
        clock_sync: whether to measure the server's clock against this host's.

    Raises:
        ConfigError: a setting that can't be meant, or no key.
    """

    # -- a stream's life ----------------------------------------------------------------------------------

    async def initialize(
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
        """Create a stream on the server and return its ``data_id``.

        Args:
            fps: frames a second of the camera.
            rotations_per_min: of the substrate; 0 for stationary RHEED.
            chunk_size: frames in a chunk; the hosted service wants at least 2 s of them.
            stream_name: how it is listed; ``RHEED Stream @ 4:41PM`` by default.
            physical_sample: a name (matched ignoring case, created if missing) or a UUID (must exist).
            project_id: its tracking sample is set to ``physical_sample``.
            tags: names (created if missing) or UUIDs (must exist).
            azimuth: the crystal's azimuth, of stationary streams only.

        Raises:
            TypeError, ValueError: an argument that can't be meant; nothing was created.
            NotFoundError: a sample or tag UUID that does not exist; nothing was created.
            LinkError: the stream was created but not linked; it has been ended.
            ServiceError: the server refused or was not reached.

        Warns:
            UserWarning: chunks shorter than the hosted service wants.
        """
        request = InitializeRequest(
            fps, rotations_per_min, chunk_size, stream_name, physical_sample, project_id, tags, azimuth
        )
        return await self.initialize_quietly(request.warned(stacklevel=2))

    async def initialize_quietly(self, request: InitializeRequest) -> str:
        """:meth:`initialize` without the warning, for callers that give it in a frame of their own."""
        engine = await self._start()
        return await engine.initialize(request)

    async def resume(self, data_id: str) -> int:
        """Go on with a stream that an earlier process left in the spool; returns its next chunk index.

        What it had not delivered is on its way.

        Raises:
            UnknownStreamError: the spool has no such stream of this endpoint.
            StreamFinalizedError: it was finalized; what is left of it is delivered all the same.
            SpoolLockedError: another process has it.
        """
        engine = await self._start()
        return await engine.resume(data_id)

    async def push(
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
        """Hand over one chunk; returns when it is copied, long before it is delivered.

        Args:
            data_id: the stream.
            chunk_idx: from 0; an index belongs to one content, so the same one again is checked, not sent.
            frames: uint8 (N, H, W) with N up to ``chunk_size``, or (H, W), of any strides. uint16 too towards
                an atomstream server.
            capture_start_ms_utc: when the first frame was captured, sent as given; None: they were just captured.
            frame_times_ms: capture time of each frame in UTC ms (sent to an atomstream server only).
            frame_ids: the camera's counter of each frame (likewise).
            angles_deg: the manipulator's angle at each frame (likewise).
            copy: False hands the array itself over, where it is C-contiguous: do not write to it again.

        Raises:
            TypeError, ValueError: frames that can't be meant; nothing was taken.
            ChunkConflictError: the index was pushed before with other frames.
            BufferFullError: no room, where ``on_full`` or ``full_timeout_s`` says so.
            StreamFinalizedError, UnknownStreamError, StreamGoneError: the stream takes no frames.
        """
        engine, stream = self._open_stream(data_id)
        engine.check_loop()
        offer = self._offer(
            data_id, chunk_idx, frames, capture_start_ms_utc, frame_times_ms, frame_ids, angles_deg, copy
        )
        await engine.pipeline.intake.push(stream, offer)

    def start_push(
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
    ) -> Future[bool] | None:
        """Begin :meth:`push` without the loop, from any thread: the frames are copied, and taken if there is room now.

        ``frames`` must not change until the future is done. It says whether the chunk was taken; where it says False,
        or there is None, :meth:`push` takes it, or waits for it, or says what is wrong.
        """
        offer = self._offer(
            data_id, chunk_idx, frames, capture_start_ms_utc, frame_times_ms, frame_ids, angles_deg, copy
        )
        engine, stream = self._stream(data_id)
        return None if engine.loop_closed else engine.pipeline.intake.start_push(stream, offer)

    def _offer(
        self, data_id: str, chunk_idx: Any, frames: Any, capture_start_ms: Any,
        frame_times_ms: Any, frame_ids: Any, angles_deg: Any, copy: bool,
    ) -> Offer:  # fmt: skip
        engine, stream = self._open_stream(data_id)
        index = checks.check_index(chunk_idx, stream.ledger.next_index)
        array = checks.check_chunk(frames, stream.spec)
        stream.check_geometry(array.shape[1:], array.dtype.newbyteorder("="))
        meta = checks.check_meta(len(array), frame_times_ms, frame_ids, angles_deg)
        given = checks.check_capture_ms(capture_start_ms)
        stamp = engine.stamp(len(array) / stream.spec.fps, _first_time(given, meta))
        return Offer(index, array, stamp, meta, copy)

    async def push_frame(
        self,
        data_id: str,
        frame: Frames,
        capture_ms_utc: float | None = None,
        frame_id: int | None = None,
        angle_deg: float | None = None,
    ) -> None:
        """Hand over one frame; chunks of ``chunk_size`` fill and go by themselves.

        The last short chunk goes at ``flush`` or ``finalize``. A gap in ``frame_id`` or capture times ends a
        chunk early, so that frames keep their place in time.

        Raises:
            As :meth:`push`.
        """
        shot = self._shot(data_id, frame, capture_ms_utc, frame_id, angle_deg)
        engine, stream = self._stream(data_id)
        engine.check_loop()
        filler = engine.pipeline.fillers[data_id]
        while not filler.try_add(shot):
            permit = await engine.pipeline.intake.enter(stream, filler.nbytes_needed(frame), filling=True)
            if permit is None:
                engine.pipeline.intake.refuse(stream, None)
                filler.discard_chunk()
            else:
                filler.bring(permit)

    def try_push_frame(
        self,
        data_id: str,
        frame: Frames,
        capture_ms_utc: float | None = None,
        frame_id: int | None = None,
        angle_deg: float | None = None,
    ) -> bool:
        """As :meth:`push_frame` but never waits, from any thread; False: no room now, the frame was not taken."""
        shot = self._shot(data_id, frame, capture_ms_utc, frame_id, angle_deg)
        return self._stream(data_id)[0].pipeline.fillers[data_id].try_add(shot)

    async def run(self, data_id: str, frames_iter: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Push everything that ``frames_iter`` yields, from the stream's next index on.

        Args:
            data_id: the stream.
            frames_iter: a sync or async iterable of frames or ``(frames, capture_start_ms_utc)``. A sync one is
                iterated in a thread of its own, for it may sleep. Items above ``chunk_size`` are split, single
                frames (H, W) are gathered as ``push_frame`` does.

        Raises:
            As :meth:`push`, and what the iterable raises; what was taken before is safe.
        """
        engine, _ = self._open_stream(data_id)
        engine.check_loop()
        async with aclosing(items_of(frames_iter)) as items:
            async for item in items:
                await self.push_item(data_id, item)

    async def push_item(self, data_id: str, item: Any) -> None:
        """One item of :meth:`run`."""
        frames, given_ms = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        engine, stream = self._open_stream(data_id)
        array = checks.check_item(frames, stream.spec)
        given = checks.check_capture_ms(given_ms)
        if array.ndim == 2:
            await self.push_frame(data_id, array, given)
            return
        stream.check_geometry(array.shape[1:], array.dtype.newbyteorder("="))
        engine.pipeline.fillers[data_id].flush()
        stamp = engine.stamp(len(array) / stream.spec.fps, given)
        for part, part_stamp in split(array, stamp, stream.spec):
            await engine.pipeline.intake.push(stream, Offer(None, part, part_stamp, FrameMeta()))

    async def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """Wait until all that was pushed so far is settled with the server.

        Raises:
            DrainTimeoutError: ``timeout_s`` ran out; nothing is lost, uploads go on.
        """
        engine, stream = self._stream(data_id)
        await engine.flush(stream, _timeout(timeout_s))

    async def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """Wait until everything is delivered, say that the stream is complete, report what arrived.

        May be called again; the stream takes no frames from the first call on. None waits 600 s.

        Raises:
            DrainTimeoutError: time ran out. Nothing was discarded, uploads go on, the error has the report.
            StreamGoneError: the server does not know the stream any more.

        Warns:
            RuntimeWarning: once, when chunks are missing.
        """
        report = await self.finalize_quietly(data_id, drain_timeout_s)
        self.warn_of_losses(data_id, report, stacklevel=2)
        return report

    async def finalize_quietly(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """:meth:`finalize` without the warning, for callers that give it in a frame of their own."""
        timeout = _timeout(drain_timeout_s)
        engine = self._running()
        return await engine.finalize(engine.pipeline.stream(data_id), timeout)

    def warn_of_losses(self, data_id: str, report: StreamReport, stacklevel: int) -> None:
        """The one RuntimeWarning about missing chunks, from the caller's frame."""
        self._running().endings[data_id].warn_once(report, stacklevel + 1)

    def _shot(self, data_id: str, frame: Any, capture_ms: Any, frame_id: Any, angle_deg: Any) -> Shot:
        engine, stream = self._open_stream(data_id)
        given = checks.check_capture_ms(capture_ms, "capture_ms_utc")
        return Shot(
            frame=checks.check_frame(frame, stream.spec),
            capture_ms=given,
            frame_id=None if frame_id is None else checks.check_frame_id(frame_id),
            angle_deg=None if angle_deg is None else checks.check_angle(angle_deg),
            stamp=lambda: engine.stamp(1.0 / stream.spec.fps, given),
        )


def _first_time(given: float | None, meta: FrameMeta) -> float | None:
    return meta.times_ms[0] if given is None and meta.times_ms else given


def _timeout(value: float | None) -> float | None:
    return None if value is None else finite("timeout", value, 0.0, 1e9)
