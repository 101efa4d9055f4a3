"""The streamer for asyncio applications: :class:`AsyncRHEEDStreamer`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from atomstream.checks import integer_in_range, number_in_range
from atomstream.config import Durability, OnFull, WhenUnreachable
from atomstream.errors import ClosedError, ConfigError, UnknownStreamError
from atomstream.records import ClockStatus, Frames, Json, StreamReport
from atomstream.spool import SpoolStatus
from atomstream.streaming.annotations import check_rpm
from atomstream.streaming.settings import apply_verbosity, make_settings
from atomstream.streaming.statistics import StreamerStats, stats_of
from atomstream.streaming.stream_request import ChunkArguments, FrameArguments, InitializeRequest
from atomstream.streaming.warm_up import warm_up_process

if TYPE_CHECKING:
    from atomstream.results import Event
    from atomstream.streaming.result_batch import ResultBatch
    from atomstream.streaming.session import StreamingSession


class AsyncRHEEDStreamer:
    """Stream live RHEED frames to a server from an asyncio application.

    A streamer belongs to the event loop in which its first method is awaited. Use ``async with``, or call
    :meth:`close` at the end. Several streams may be open at the same time.

    Args:
        api_key: key of the server. None: ``$ATOMSTREAM_API_KEY``, else the key that ``atomstream login`` saved.
        endpoint: URL of the server. None: ``$ATOMSTREAM_ENDPOINT``, else that of ``atomstream login``. Without either,
            only a key that is passed as ``api_key`` goes to the hosted service; one from the environment goes nowhere.
        verbosity: log level on stderr: 0 errors, 1 warnings, 2 progress, 3 everything. None: logging stays as the
            application configured it.
        spool_dir: folder in which chunks are kept until the server has them. None: ``$ATOMSTREAM_SPOOL_DIR``, else a
            folder for application state in the user's home. Chunks that an earlier process left there for the same
            endpoint are uploaded too.
        spool_max_bytes: limit for the spool of all processes together. None: 20 GB or 10 % of the free disk space,
            whichever is smaller.
        spool_min_free_bytes: disk space that the spool leaves free. None: 512 MiB.
        spool_retention_s: age in seconds after which a chunk that was not uploaded is deleted. None: never.
        buffer_bytes: limit for frames in memory, raw and encoded. None: 512 MiB or a quarter of the RAM, whichever is
            smaller.
        on_full: what ``push`` does at this limit: ``"wait"``, ``"drop_newest"``, ``"drop_oldest"`` or ``"raise"``.
            Each dropped chunk is counted and logged.
        full_timeout_s: longest wait of ``on_full="wait"`` in seconds; then ``push`` raises. None: no limit.
        durability: when ``push`` returns. ``"memory"``: when the chunk is copied. ``"disk"``: when it would survive a
            power failure, or when the server has it.
        compression_level: zstd level, -50 to 22. From level 0 on, a shard is at most 1 % larger than zstd alone would
            make it, and often smaller.
        encoder_threads: threads that compress, 1 to 256. None: one per core, at most 4.
        upload_concurrency: number of simultaneous uploads, 1 to 256.
        request_timeout_s: limit for one request to the server, in seconds.
        upload_timeout_s: limit for the upload of one chunk, in seconds.
        clock_sync: whether to measure the difference between the server's clock and this computer's clock. None: yes,
            unless ``$ATOMSTREAM_SKIP_CLOCK_SYNC`` is set.
        when_unreachable: what ``initialize`` does if the server can't be reached. ``"record"``: begin the stream under
            a local id in the spool, and register it when the server answers. ``"raise"``: raise the error.

    Raises:
        ConfigError: an argument is invalid, or there is no API key or no endpoint.
        TypeError: an argument has the wrong type.
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
        apply_verbosity(verbosity)
        self._settings = make_settings(
            api_key=api_key,
            endpoint=endpoint,
            spool_dir=spool_dir,
            spool_max_bytes=spool_max_bytes,
            spool_min_free_bytes=spool_min_free_bytes,
            spool_retention_s=spool_retention_s,
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
        # Imported here because it imports aiohttp: that is half of the import time of this module, and in a running
        # event loop it would block the loop.
        from atomstream.streaming.session import StreamingSession

        warm_up_process()
        self._session_class = StreamingSession
        self._session: StreamingSession | None = None
        self._closed = False

    # -- streams ------------------------------------------------------------------------------------------

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

        If the server can't be reached after some attempts, the stream begins under a local id (``local-...``). Its
        frames are kept in the spool. When the server answers, the stream is registered there and its frames are sent,
        by this streamer or by the next one with the same spool. All methods take the local id; :meth:`server_id`
        returns the other one. A warning is logged. An unknown sample, tag or project is then found only at the
        registration: the stream is stored without it, and an error is logged.

        Args:
            fps: frame rate of the camera in frames per second, 0.001 to 100 000.
            rotations_per_min: rotation of the substrate, 0 to 10 000; 0 for stationary RHEED.
            chunk_size: frames per chunk, 1 to 100 000. The hosted service requires at least 2 s of frames.
            stream_name: name of the stream in lists. None: a name with the time, such as ``RHEED Stream @ 4:41PM``.
            physical_sample: name of a sample (upper and lower case are equal; created if it does not exist), or the
                UUID of an existing one.
            project_id: UUID of a project; its tracked sample is set to ``physical_sample``.
            tags: names (created if they do not exist), or UUIDs of existing tags.
            azimuth: azimuth of the crystal, for stationary streams only.

        Raises:
            TypeError: an argument has the wrong type; nothing was created.
            ConfigError: an argument is invalid (it is a ValueError); nothing was created.
            NotFoundError: no sample or tag has the given UUID; nothing was created.
            LinkError: the stream was created, but linking it to the sample, tags or project failed; it was ended.
            ServiceError: the server refused the request. It was not reached, and ``when_unreachable`` is "raise" or
                there is no spool.

        Warns:
            UserWarning: the chunks are shorter than the hosted service requires.
        """
        request = InitializeRequest(
            fps, rotations_per_min, chunk_size, stream_name, physical_sample, project_id, tags, azimuth
        )
        request.warn_if_short(stacklevel=2)
        session = await self._open_session()
        return await session.initialize(request)

    async def resume(self, data_id: str) -> int:
        """Continue a stream that an earlier process left in the spool; returns its next chunk index.

        The chunks that the earlier process did not deliver are uploaded in the background.

        Args:
            data_id: the stream.

        Raises:
            UnknownStreamError: the spool has no such stream for this endpoint.
            StreamFinalizedError: the stream was finalized; its remaining chunks are uploaded nevertheless.
            SpoolLockedError: another process uses the stream.
        """
        session = await self._open_session()
        return await session.resume(data_id)

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
        """Push one chunk of frames. Returns when the chunk is copied, long before it is uploaded.

        At the memory limit ``on_full`` applies: by default this waits until there is room.

        Args:
            data_id: the stream.
            chunk_idx: index of the chunk, from 0, at most 100 000 above the next one. An index belongs to one
                content: equal frames pushed again are ignored, other frames are an error.
            frames: array of uint8, shape (N, H, W) with N up to ``chunk_size``, or (H, W); any strides. An atomstream
                server accepts uint16 too.
            capture_start_ms_utc: capture time of the first frame in milliseconds since 1970 (UTC). It is sent
                unchanged. None: the last frame was captured now.
            frame_times_ms: capture time of each frame in UTC milliseconds, N values. Only an atomstream server gets
                it; so do the next two.
            frame_ids: counter of the camera for each frame, N integers.
            angles_deg: angle of the manipulator at each frame in degrees, N values.
            copy: False passes the array without a copy if it is C-contiguous. Do not write to it afterwards.

        Raises:
            TypeError: an argument has the wrong type, or the frames' dtype is not accepted. Nothing was pushed.
            ValueError: the shape, the size or another argument is invalid. Nothing was pushed.
            ChunkConflictError: other frames were pushed with this index before.
            BufferFullError: no room (``on_full="raise"``, or ``full_timeout_s`` elapsed). Nothing was pushed.
            UnknownStreamError, StreamFinalizedError, StreamGoneError: the stream does not accept frames.
        """
        session = self._current_session()
        session.check_loop()
        await session.frames.push(
            ChunkArguments(
                data_id, chunk_idx, frames, capture_start_ms_utc, frame_times_ms, frame_ids, angles_deg, copy
            )
        )

    async def push_frame(
        self,
        data_id: str,
        frame: Frames,
        capture_ms_utc: float | None = None,
        frame_id: int | None = None,
        angle_deg: float | None = None,
    ) -> None:
        """Push one frame. A chunk is sent when ``chunk_size`` frames are gathered; its index is the next free one.

        The last, shorter chunk is sent by ``flush`` or ``finalize``. Gaps in ``frame_id``, or else in the capture
        times, are counted in ``stats()`` and logged once. One of a whole chunk also ends a chunk where the server gets
        no time for each frame, so that each frame keeps its position in time.

        Args:
            data_id: the stream.
            frame: array of uint8, shape (H, W); an atomstream server accepts uint16 too. It is copied.
            capture_ms_utc: capture time in milliseconds since 1970 (UTC). None: it was captured now.
            frame_id: counter of the camera.
            angle_deg: angle of the manipulator in degrees.

        Raises:
            TypeError, ValueError: the frame or another argument is invalid. The frame was not accepted.
            BufferFullError: no room (``on_full="raise"``, or ``full_timeout_s`` elapsed). The frame was not accepted.
            UnknownStreamError, StreamFinalizedError, StreamGoneError: the stream does not accept frames.
        """
        session = self._current_session()
        session.check_loop()
        await session.frames.push_frame(FrameArguments(data_id, frame, capture_ms_utc, frame_id, angle_deg))

    async def run(self, data_id: str, frames_iter: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Push everything that ``frames_iter`` yields, starting at the stream's next index.

        Args:
            data_id: the stream.
            frames_iter: a synchronous or asynchronous iterable. Its items are frames, or tuples
                ``(frames, capture_start_ms_utc)``; frames are uint8 of shape (N, H, W) with any N, or (H, W). Items of
                more than ``chunk_size`` frames are split. Single frames are gathered as by ``push_frame``. A
                synchronous iterable runs in its own thread, so it may sleep.

        Raises:
            As ``push``, and every error that the iterable raises. Frames pushed before the error are kept.
        """
        session = self._current_session()
        session.check_loop()
        await session.frames.run(data_id, frames_iter)

    async def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """Wait until the server has acknowledged all frames pushed so far, or they are reported as lost.

        Args:
            data_id: the stream.
            timeout_s: limit in seconds; None: no limit.

        Raises:
            DrainTimeoutError: the timeout elapsed. Nothing is lost, the uploads continue.
            UnknownStreamError: this streamer has no such stream.
            StreamGoneError: the server has no such stream any more.
        """
        session = self._current_session()
        await session.flush(data_id, timeout_s)

    async def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """Wait until all chunks are uploaded, end the stream on the server, and report what arrived.

        The stream accepts no frames from the first call on. It may be called again, for example after a timeout.

        Args:
            data_id: the stream.
            drain_timeout_s: limit in seconds; None: 600 s.

        Returns:
            A dictionary: the counts of chunks by state, ``lost`` with the index and the reason of each missing chunk,
            and ``closed``, True if the stream has ended on the server.

        Raises:
            DrainTimeoutError: the timeout elapsed. Nothing was discarded, the uploads continue; the error has the
                report.
            UnknownStreamError: this streamer has no such stream.
            StreamGoneError: the server has no such stream any more.

        Warns:
            RuntimeWarning: chunks are missing; given once per stream.
        """
        session = self._current_session()
        report = await session.finalize(data_id, drain_timeout_s)
        session.warn_about_losses(data_id, report, stacklevel=2)
        return report

    # -- results and annotations --------------------------------------------------------------------------

    async def results(self, data_id: str, after: int = 0) -> AsyncGenerator[ResultBatch, None]:
        """Yield the results of the live analysis as they are made, until the analysis of the stream has ended.

        Every batch is yielded once and in order. Interruptions of the network and restarts of the server are handled
        here. If the caller is minutes behind, the oldest batches are lost; ``lost`` of the next batch counts them.
        The hosted service has no live feed: its time series are requested every 2 s.

        Args:
            data_id: a stream of the server; also one of another streamer.
            after: ``seq`` of the last batch that the caller already has; 0 starts with the first batch.

        Raises:
            NotFoundError: the server has no such stream.
            AuthenticationError, RejectedError: the server refuses the request.
            ClosedError: the streamer was closed in the meantime.
        """
        first = integer_in_range("after", after, 0, 1 << 53)
        session = await self._open_session()
        async with aclosing(session.subscribe(data_id, first).batches()) as batches:
            async for batch in batches:
                yield batch

    async def latest(self, data_id: str) -> ResultBatch | None:
        """Return the latest batch of results without waiting; None if there is none yet.

        The first call starts a subscription in the background, so it usually returns None.

        Args:
            data_id: a stream of the server.
        """
        session = await self._open_session()
        return session.latest(data_id)

    async def mark(
        self, data_id: str, label: str, kind: str = "note", time_ms_utc: float | None = None
    ) -> Event:
        """Mark an event of the stream, such as a shutter that opens. Returns when the server has stored it.

        Args:
            data_id: the stream.
            label: text for people, up to 200 characters.
            kind: ``"shutter"``, ``"laser"``, ``"growth"`` and ``"pause"`` begin a new segment of the growth;
                ``"note"`` and every other word (a-z, 0-9 and _, up to 32 characters) do not.
            time_ms_utc: time of the event in milliseconds since 1970 (UTC). None: now, on the server's clock.

        Raises:
            StreamError: the server stores no events, because it is not an atomstream server. Nothing was sent.
            TypeError, ConfigError: an argument is invalid. Nothing was sent.
            ServiceError: the server refused the request or was not reached.
        """
        session = await self._open_session()
        return await session.mark(data_id, label, kind, time_ms_utc)

    async def set_rotation(self, data_id: str, rpm: float) -> Event:
        """Report that the substrate rotates at ``rpm`` from now on. The analysis begins a new segment.

        The rotation that ``initialize`` stored with the stream is not changed.

        Args:
            data_id: the stream.
            rpm: rotations per minute, 0 to 10 000; 0 means stationary.

        Raises:
            As ``mark``.
        """
        turns = check_rpm(rpm)
        session = await self._open_session()
        return await session.mark(data_id, f"rotation at {turns:g} rpm", "rotation", None, turns)

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
        """Set the calibration that converts pixels and oscillations to lengths. It replaces the previous one.

        Without a value the results that need it stay in relative units. Before the first chunk the calibration applies
        to the whole stream, later from the next result on. A stream that has ended is analysed again.

        Args:
            data_id: the stream.
            beam_energy: energy of the electrons in keV, 1 to 200.
            screen_sample_distance: distance from the sample to the screen in mm, 10 to 5000.
            px_per_mm: pixels of the image per mm on the screen, 0.1 to 1000. These three together give the lattice
                parameter in Å.
            incidence_deg: glancing angle in degrees, 0 to 15. None: 0.
            layer_thickness_nm: thickness of one layer in nm, 0.01 to 100. It gives the growth rate in nm/s.
            layer_unit: what one oscillation is, 1 to 32 characters: ``"monolayer"``, ``"unit cell"``, ``"bilayer"``.
                None: ``"monolayer"``.
            miller_n: n in a = 2πn/G, 0.01 to 100. None: 1.
            reference_spacing_px: streak spacing of the substrate in pixels, 1 to 10 000. It gives the strain.

        Raises:
            StreamError: the server stores no calibration, because it is not an atomstream server. Nothing was sent.
            TypeError, ConfigError: an argument is invalid. Nothing was sent.
            RejectedError: a value is outside the server's range; the message has the range.
            ServiceError: the server refused the request or was not reached.
        """
        values: dict[str, float | str | None] = {
            "beam_energy": beam_energy,
            "screen_sample_distance": screen_sample_distance,
            "px_per_mm": px_per_mm,
            "incidence_deg": incidence_deg,
            "layer_thickness_nm": layer_thickness_nm,
            "layer_unit": layer_unit,
            "miller_n": miller_n,
            "reference_spacing_px": reference_spacing_px,
        }
        session = await self._open_session()
        await session.calibrate(data_id, values)

    async def set_attributes(self, data_id: str, attributes: Mapping[str, Json]) -> None:
        """Note how the stream was recorded, such as camera, exposure or crop. The archive stores it with the frames.

        Attributes that the stream has already stay; one of the same name gets the new value. In the archive's Zarr
        group each name begins with ``recording_``.

        Args:
            data_id: a stream of the server.
            attributes: up to 64 names (a-z, 0-9 and _, up to 64 characters); each value is a text of up to 1000
                characters, a number, a bool, or a list of them.

        Raises:
            StreamError: the server stores no attributes, because it is not an atomstream server. Nothing was sent.
            TypeError, ConfigError: an argument is invalid. Nothing was sent.
            ServiceError: the server refused the request or was not reached.
        """
        session = await self._open_session()
        await session.set_attributes(data_id, attributes)

    # -- status and close ---------------------------------------------------------------------------------

    async def clock_status(self) -> ClockStatus | None:
        """Return the measured difference between the server's clock and this computer's; None if not measured."""
        self._check_usable()
        return None if self._session is None else self._session.clock_status()

    async def spool_status(self) -> SpoolStatus:
        """Return what the spool holds, for all streams and processes that use its folder (see ``SpoolStatus``).

        Raises:
            SpoolError: the disk can't be read.
        """
        session = await self._open_session()
        return await session.spool_status()

    async def server_id(self, data_id: str) -> str | None:
        """Return the id of a stream on the server; None if it began without the server and is not registered yet.

        Args:
            data_id: the id that ``initialize`` or ``resume`` returned, such as a local one.

        Raises:
            UnknownStreamError: this streamer has no such stream.
        """
        return self._current_session().server_id(data_id)

    async def stats(self) -> StreamerStats:
        """Return counts, rates and free memory as of now (see ``StreamerStats``); zeros before the first stream."""
        self._check_usable()
        return stats_of(self._settings, None) if self._session is None else self._session.stats()

    async def close(self, drain_timeout_s: float = 30.0) -> None:
        """Wait until all pushed frames are on disk or uploaded, then release all resources.

        Chunks on disk are uploaded by the next streamer with the same spool, or by ``atomstream spool resume``.
        Without a usable disk this waits for the uploads. It does not finalize the streams. Further calls do nothing.

        Args:
            drain_timeout_s: limit of the wait in seconds, 0 to 1e9.

        Warns:
            RuntimeWarning: chunks were neither on disk nor uploaded in this time; they are lost.
        """
        if self._pid != os.getpid() or self._closed:
            return
        drain_s = number_in_range("drain_timeout_s", drain_timeout_s, 0.0, 1e9)
        if self._session is not None:
            self._session.check_loop()
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close(drain_s)

    async def __aenter__(self) -> Self:
        await self._open_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open_session(self) -> StreamingSession:
        """Return the session, which is made at the first call."""
        self._check_usable()
        if self._session is None:
            check_event_loop()
            self._session = self._session_class(self._settings)
        await self._session.started()
        return self._session

    def _current_session(self) -> StreamingSession:
        """Return the session; any thread may call this.

        Raises:
            ClosedError: the streamer is closed. UnknownStreamError: no stream was initialized or resumed.
        """
        self._check_usable()
        if self._session is None:
            raise UnknownStreamError("No stream yet: call initialize() first; it returns the data_id.")
        return self._session

    def _check_usable(self) -> None:
        check_process(self._pid)
        if self._closed:
            raise ClosedError("The streamer is closed; make a new one.")


def check_event_loop() -> None:
    """Check that an event loop of asyncio runs in this thread.

    Raises:
        ConfigError: none runs, for example because the application uses trio.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "This streamer needs asyncio, and no event loop of asyncio runs here: the application uses trio or "
            "another library. Use the blocking RHEEDStreamer there, whose methods may be called in any thread "
            "(trio.to_thread.run_sync), or run the application with asyncio. Nothing was sent."
        ) from None


def check_process(pid: int) -> None:
    """Check that this is the process ``pid``, which made the streamer.

    Raises:
        ClosedError: it is a forked child.
    """
    if pid != os.getpid():
        raise ClosedError(
            "This streamer belongs to the process that made it; a forked child can't use it (its parent can "
            "continue). Make a new RHEEDStreamer in the child."
        )
