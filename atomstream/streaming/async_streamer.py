"""The async front door: :class:`AsyncRHEEDStreamer`, its verbs; its life is in :mod:`.life`."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from atomstream import config
from atomstream.config import ClientSettings, Durability, OnFull, integer_in_range, number_in_range
from atomstream.errors import ClosedError, StreamFinalizedError, UnknownStreamError
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.frame_batcher import Frame
from atomstream.pipeline.stream import StreamState
from atomstream.records import ClockStatus, FrameMeta, Frames, StreamReport
from atomstream.results import Event
from atomstream.spool import SpoolStatus
from atomstream.streaming import annotations as calibrating
from atomstream.streaming import annotations as events
from atomstream.streaming import validation as checks
from atomstream.streaming.registration import InitializeRequest
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.statistics import StreamerStats, stats_of
from atomstream.streaming.subscription import ResultSubscription
from atomstream.streaming.validation import items_of, split
from atomstream.streaming.warm_up import get_ready

if TYPE_CHECKING:
    from atomstream.streaming.session import StreamingSession


# What ``verbosity`` means: how much the ``atomstream`` loggers say on stderr.

_LEVELS: Final = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def apply_verbosity(verbosity: int | None) -> None:
    """0 errors, 1 warnings, 2 progress, 3 all; None leaves logging as the application set it up."""
    if verbosity is None:
        return
    logger = logging.getLogger("atomstream")
    logger.setLevel(_LEVELS[min(max(int(verbosity), 0), len(_LEVELS) - 1)])
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


# From constructor arguments to :class:`~atomstream.config.ClientSettings`: defaults are filled in here.


def make_settings(
    api_key: str | None, endpoint: str | None, verbosity: int | None, clock_sync: bool | None,
    buffer_bytes: int | None, encoder_threads: int | None, spool_dir: str | os.PathLike[str] | None,
    spool_min_free_bytes: int | None, **rest: Any,
) -> ClientSettings:  # fmt: skip
    """Check and complete what a streamer was told.

    Raises:
        ConfigError: a setting that can't be meant, or no key.
    """
    apply_verbosity(verbosity)
    key = config.resolve_api_key(api_key)
    return ClientSettings(
        api_key=key,
        endpoint=config.resolve_endpoint(endpoint, key),
        clock_sync=config.clock_sync_enabled() if clock_sync is None else clock_sync,
        buffer_bytes=config.default_buffer_bytes() if buffer_bytes is None else buffer_bytes,
        encoder_threads=config.default_encoder_threads() if encoder_threads is None else encoder_threads,
        spool_dir=config.resolve_spool_dir(spool_dir),
        spool_min_free_bytes=(
            config.SPOOL_MIN_FREE_BYTES if spool_min_free_bytes is None else spool_min_free_bytes
        ),
        **rest,
    )


# A streamer's life: what it was told, what runs behind it, how it stands, how it ends.


class StreamerLife:
    """Everything of a streamer but its verbs for streams (see :class:`.streamer.AsyncRHEEDStreamer`)."""

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
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}
        self._settings = make_settings(**given)
        self._pid = os.getpid()
        # Here, for it brings the HTTP library: half of what an import would cost, and in a running loop a stall.
        from atomstream.streaming.session import StreamingSession

        get_ready()
        self._make_engine: Final = StreamingSession
        self._engine: StreamingSession | None = None
        self._closed = False

    # -- how it stands ------------------------------------------------------------------------------------

    async def clock_status(self) -> ClockStatus | None:
        """How this host's clock stands to the server's; None where it was not measured."""
        self._check_usable()
        return None if self._engine is None else self._engine.clock_status()

    async def spool_status(self) -> SpoolStatus:
        """What waits on disk, of all streams and processes on this spool (see :class:`SpoolStatus`).

        Raises:
            SpoolError: the disk under the spool can't be read.
        """
        engine = await self._start()
        return await engine.spool_status()

    async def stats(self) -> StreamerStats:
        """Counts, rates and room now (see :class:`~atomstream.streaming.statistics.StreamerStats`)."""
        self._check_usable()
        return stats_of(self._settings, None if self._engine is None else self._engine.pipeline)

    async def close(self, drain_timeout_s: float = 30.0) -> None:
        """Let go of everything, once all that was pushed is on disk or delivered.

        What is on disk is delivered by the next streamer on the same spool, or by ``atomstream spool resume``.
        Where the disk failed it waits for the server, at most ``drain_timeout_s`` seconds. Harmless when
        repeated. Does not finalize: that is said by ``finalize`` alone.

        Warns:
            RuntimeWarning: chunks were neither on disk nor delivered in time; they are lost.
        """
        if self._pid != os.getpid() or self._closed:
            return
        drain_s = number_in_range("drain_timeout_s", drain_timeout_s, 0.0, 1e9)
        if self._engine is not None:
            self._engine.check_loop()
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close(drain_s)

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- shared ------------------------------------------------------------------------------------------

    async def _start(self) -> StreamingSession:
        self._check_usable()
        if self._engine is None:
            self._engine = self._make_engine(self._settings)
        await self._engine.started()
        return self._engine

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise ClosedError(
                "This streamer belongs to the process that made it; a forked child can't use it (its parent goes "
                "on unharmed). Make a new RHEEDStreamer in the child."
            )
        if self._closed:
            raise ClosedError("The streamer is closed; make a new one.")

    def _running(self) -> StreamingSession:
        self._check_usable()
        if self._engine is None:
            raise UnknownStreamError("No stream yet: call initialize() first; it returns the data_id.")
        return self._engine

    def _stream(self, data_id: str) -> tuple[StreamingSession, StreamState]:
        engine = self._running()
        stream = engine.pipeline.stream(data_id)
        stream.failure.raise_if_set()
        return engine, stream

    def check_open(self, data_id: str) -> None:
        """See that the stream takes frames; from any thread.

        Raises:
            ClosedError, UnknownStreamError, StreamFinalizedError, StreamGoneError: it does not.
        """
        self._open_stream(data_id)

    def _open_stream(self, data_id: str) -> tuple[StreamingSession, StreamState]:
        engine, stream = self._stream(data_id)
        if stream.ledger.sealed:
            raise StreamFinalizedError(
                f"Stream {data_id} was finalized: it takes no more frames. Initialize a new stream.",
                data_id=data_id,
            )
        return engine, stream


# The verbs of a streamer for what comes back: live results, and the events that belong to them.


class StreamerResults(StreamerLife):
    """``results``, ``latest``, ``mark``, ``set_rotation``, ``calibrate``; of any stream of the server."""

    async def results(self, data_id: str, after: int = 0) -> AsyncGenerator[ResultBatch, None]:
        """Live results as they are made; ends when the stream's analysis has ended (after ``finalize``).

        Goes through breaks of the network and restarts of the server by itself: every batch comes once, in order.
        A reader that is minutes behind loses the oldest, which the next batch's ``lost`` counts. Where the server
        has no feed (the hosted service), its series are polled.

        Args:
            data_id: the stream.
            after: the ``seq`` of the last batch that is known already; 0 begins with the stream's first.

        Raises:
            NotFoundError: the server has no such stream.
            AuthenticationError, RejectedError: the server refuses.
            ClosedError: the streamer was closed meanwhile.
        """
        place = integer_in_range("after", after, 0, 1 << 53)
        engine = await self._start()
        follower = ResultSubscription(engine.results, data_id, place, engine.announced(data_id))
        async with aclosing(follower.batches()) as batches:
            async for batch in batches:
                yield batch

    async def latest(self, data_id: str) -> ResultBatch | None:
        """The newest batch, without waiting for one; None as long as none has come.

        The first call begins to follow the stream in the background.
        """
        engine = await self._start()
        return engine.latest(data_id)

    async def mark(
        self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None
    ) -> Event:
        """Note an event of the stream; returns once the server has kept it.

        Args:
            data_id: the stream.
            label: for people, up to 200 characters.
            kind: ``"shutter"``, ``"laser"``, ``"growth"`` and ``"pause"`` begin a new segment of the growth;
                ``"note"`` and any other word do not.
            time_ms_utc: when it happened; None: now, by the server's clock.

        Raises:
            StreamError: the server keeps no events (it is no atomstream server); nothing was sent.
            TypeError, ConfigError: an argument that can't be meant. ServiceError: as the server says.
        """
        return await events.mark(await self._start(), data_id, label, kind, time_ms_utc)

    async def set_rotation(self, data_id: str, rpm: float) -> Event:
        """Say that the substrate turns at ``rpm`` from now on: a new segment, analysed accordingly.

        What is told of each chunk on its way stays what ``initialize`` said.

        Raises:
            As :meth:`mark`.
        """
        turns = events.check_rpm(rpm)
        engine = await self._start()
        return await events.mark(engine, data_id, f"rotation at {turns:g} rpm", "rotation", None, turns)

    async def calibrate(
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
        """Say what turns pixels and oscillations into lengths; what is left out stays in relative units, said so.

        Before the first chunk it holds for all of the stream; later from the next result on, and of a finished
        stream everything is analysed again with it. It replaces what was said before.

        Args:
            data_id: the stream.
            beam_energy: of the electrons, in keV.
            screen_sample_distance: in mm.
            px_per_mm: of the picture, in pixels a mm on the screen. With both above: lattice parameter in Å.
            incidence_deg: the glancing angle in degrees, 0 to 15.
            layer_thickness_nm: of one layer, in nm. With it the growth rate is in nm/s too.
            layer_unit: what an oscillation is: ``"monolayer"`` (the default), ``"unit cell"``, ``"bilayer"``.
            miller_n: the n of a = 2πn/G, 1 by default.
            reference_spacing_px: streak spacing of the substrate; with it the relative change is strain.

        Raises:
            StreamError: the server takes none (it is no atomstream server); nothing was sent.
            TypeError, ConfigError: a value that can't be meant.
            RejectedError: one out of the server's range, which it says. ServiceError: as the server says.
        """
        given: dict[str, float | str | None] = {
            "beam_energy": beam_energy,
            "screen_sample_distance": screen_sample_distance,
            "px_per_mm": px_per_mm,
            "incidence_deg": incidence_deg,
            "layer_thickness_nm": layer_thickness_nm,
            "layer_unit": layer_unit,
            "miller_n": miller_n,
            "reference_spacing_px": reference_spacing_px,
        }
        await calibrating.calibrate(await self._start(), data_id, given)


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
        await engine.pipeline.push(stream, offer)

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
        return None if engine.loop_closed else engine.pipeline.start_push(stream, offer)

    def _offer(
        self, data_id: str, chunk_idx: Any, frames: Any, capture_start_ms: Any,
        frame_times_ms: Any, frame_ids: Any, angles_deg: Any, copy: bool,
    ) -> PushRequest:  # fmt: skip
        engine, stream = self._open_stream(data_id)
        index = checks.check_index(chunk_idx, stream.ledger.next_index)
        array = checks.check_chunk(frames, stream.spec)
        stream.check_geometry(array.shape[1:], array.dtype.newbyteorder("="))
        meta = checks.check_meta(len(array), frame_times_ms, frame_ids, angles_deg)
        given = checks.check_capture_ms(capture_start_ms)
        stamp = engine.stamp(len(array) / stream.spec.fps, _first_time(given, meta))
        return PushRequest(index, array, stamp, meta, copy)

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
        await engine.pipeline.push_frame(stream, shot)

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
        engine, stream = self._stream(data_id)
        return engine.pipeline.try_push_frame(stream, shot)

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
        engine.pipeline.send_gathered(stream)
        stamp = engine.stamp(len(array) / stream.spec.fps, given)
        for part, part_stamp in split(array, stamp, stream.spec):
            await engine.pipeline.push(stream, PushRequest(None, part, part_stamp, FrameMeta()))

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

    def _shot(self, data_id: str, frame: Any, capture_ms: Any, frame_id: Any, angle_deg: Any) -> Frame:
        engine, stream = self._open_stream(data_id)
        given = checks.check_capture_ms(capture_ms, "capture_ms_utc")
        return Frame(
            frame=checks.check_frame(frame, stream.spec),
            capture_ms=given,
            frame_id=None if frame_id is None else checks.check_frame_id(frame_id),
            angle_deg=None if angle_deg is None else checks.check_angle(angle_deg),
            make_timestamp=lambda: engine.stamp(1.0 / stream.spec.fps, given),
        )


def _first_time(given: float | None, meta: FrameMeta) -> float | None:
    return meta.times_ms[0] if given is None and meta.times_ms else given


def _timeout(value: float | None) -> float | None:
    return None if value is None else number_in_range("timeout", value, 0.0, 1e9)
