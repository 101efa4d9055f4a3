"""A streamer's life: what it was told, what runs behind it, how it stands, how it ends."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from atomstream.config import Durability, OnFull, finite
from atomstream.errors import ClosedError, StreamFinalizedError, UnknownStreamError
from atomstream.pipeline.stream import Stream
from atomstream.records import ClockStatus
from atomstream.spool import SpoolStatus
from atomstream.streaming.readiness import get_ready
from atomstream.streaming.settings import make_settings
from atomstream.streaming.status import StreamerStats, stats_of

if TYPE_CHECKING:
    from atomstream.streaming.engine import Engine


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
        from atomstream.streaming.engine import Engine

        get_ready()
        self._make_engine: Final = Engine
        self._engine: Engine | None = None
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
        """Counts, rates and room now (see :class:`~atomstream.streaming.status.StreamerStats`)."""
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
        drain_s = finite("drain_timeout_s", drain_timeout_s, 0.0, 1e9)
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

    async def _start(self) -> Engine:
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

    def _running(self) -> Engine:
        self._check_usable()
        if self._engine is None:
            raise UnknownStreamError("No stream yet: call initialize() first; it returns the data_id.")
        return self._engine

    def _stream(self, data_id: str) -> tuple[Engine, Stream]:
        engine = self._running()
        stream = engine.pipeline.stream(data_id)
        if stream.failure is not None:
            raise engine.told(stream)
        return engine, stream

    def check_open(self, data_id: str) -> None:
        """See that the stream takes frames; from any thread.

        Raises:
            ClosedError, UnknownStreamError, StreamFinalizedError, StreamGoneError: it does not.
        """
        self._open_stream(data_id)

    def _open_stream(self, data_id: str) -> tuple[Engine, Stream]:
        engine, stream = self._stream(data_id)
        if stream.ledger.sealed:
            raise StreamFinalizedError(
                f"Stream {data_id} was finalized: it takes no more frames. Initialize a new stream.",
                data_id=data_id,
            )
        return engine, stream
