"""The live analysis of one stream: sends its chunks in order to an analyzer, its results to the store and the feed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.live.analyzer_client import AnalyzerClient, DecodedChunk
from atomstream.server.live.annotation_records import CalibrationEntry
from atomstream.server.live.chunk_order import NextStep, ReorderBuffer
from atomstream.server.live.feed import Feed
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.missing_chunks import CRASHED, LATE, NO_ANALYSIS, UNREADABLE, MissingIndices
from atomstream.server.live.result_store import Snapshot
from atomstream.server.live.stream_parts import StreamParts
from atomstream.server.live.worker_messages import AnalyzerState
from atomstream.server.live.worker_pool import RETRY_S, JobFailedError, WorkerDiedError, WorkerStartError
from atomstream.server.streams.ingest import run_in
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
P = ParamSpec("P")
T = TypeVar("T")
SNAPSHOT_S: Final = 10.0
"""Interval of snapshots, in s: the longest part of the analysis that is repeated after a crash."""
TRIES: Final = 2
"""Failed analyses of one chunk before the chunk is left out."""
MOST_FAILURES: Final = 6
"""Failures in a row after which the analysis pauses: more than the tries of one chunk."""
OPENING_TRIES: Final = 3
"""Number of failed attempts to continue from a stored state. Then the analysis begins without it; after as many more
failures it ends without results."""
AHEAD_S: Final = 1.0
"""Chunks that start less than this time (s) after the next one to be analysed are kept decoded, because short chunks
arrive several at a time."""
DISK_PAUSE_S: Final = 1.0


class _NoAnalysisError(Exception):
    """The stream has ended, and nothing can analyse it."""


class LiveAnalysis:
    """Analyses one stream while it is recorded. Used in the server's loop; :meth:`run` returns at the end.

    After a crash of the worker, an error of the analysis or of the disk, it continues from the last snapshot. The same
    results are then made again, and the store skips those that are recorded already.
    """

    def __init__(self, parts: StreamParts[StreamArchive], feed: Feed) -> None:
        self.about = parts.metadata
        self.order = ReorderBuffer(parts.resources.gap_wait_s)
        self.missing = MissingIndices()
        """Stored chunks whose frames are not in the fits, by reason."""
        self.done = False
        """True after :meth:`run`: later chunks are not analysed here."""
        self.analyzer = AnalyzerClient(self.about.data_id, parts.archive, parts.resources)
        self._archive = parts.archive
        self._resources = parts.resources
        self._store = parts.store
        self._annotations = parts.annotations
        self._feed = feed
        self._sent = 0
        self._wake = asyncio.Event()
        self._decoded: dict[int, DecodedChunk] = {}
        self._stored_ms: dict[int, float] = {}
        self._crashes: Counter[int] = Counter()
        self._snapshot: Snapshot | None = None
        self._snapshot_at = 0.0
        self._now_chunk = -1
        self._saving: asyncio.Task[None] | None = None
        self._failed_ends = 0
        self.trouble = ""
        """Why the chunks are not analysed at present; empty if they are."""
        self.snapshot_s = SNAPSHOT_S
        self._at: int | None = None  # the chunk that is being analysed
        self._begun = False  # True once the stored chunks are in the order
        self._stepped = asyncio.Event()
        self.idle = False
        """True while it waits for the next chunk and nothing else: then it can be ended and begun again later."""
        self.saved: Callable[[], None] = lambda: None
        """Called after each snapshot."""

    # -- input ---------------------------------------------------------------------------------

    def needs_frames(self, index: int) -> bool:
        """True if the chunk is analysed so soon that its decoded frames are worth their memory."""
        size = self._archive.geometry.chunk_size if self._archive.geometry else 1
        ahead = max(1, int(AHEAD_S * self.about.fps / size))
        return not self.done and not self.trouble and 0 <= index - self.order.next_index <= ahead

    def stored(self, index: int, decoded: DecodedChunk | None) -> None:
        """Analyse chunk ``index``, which is in the archive. The analysis owns ``decoded`` from now on."""
        if index < self.order.next_index:
            # It was analysed, is being analysed or was passed: its frames are read from the archive if at all. The
            # block of a chunk that a worker reads at this moment must not be replaced or released.
            if decoded is not None:
                self._resources.frames.release(decoded.block)
        else:
            self._release(index)
            if decoded is not None:
                self._decoded[index] = decoded
        self._stored_ms[index] = 1000.0 * time.time()
        self.order.add(index)
        self._wake.set()

    def end(self) -> None:
        """Finish after the stored chunks: no more are uploaded."""
        self.order.ended = True
        self._wake.set()

    def notify(self) -> None:
        """Send new annotations to the analyzer before the next chunk."""
        self._wake.set()

    @property
    def filled_late(self) -> bool:
        """True if frames that came too late are missing in the fits."""
        return self.missing.has(LATE)

    @property
    def calibrated_late(self) -> bool:
        """True if a calibration was set too late for the analysis, which was ending."""
        return any(isinstance(entry, CalibrationEntry) for entry in self._annotations.entries[self._sent :])

    @property
    def was_corrected(self) -> bool:
        """True if events were corrected, which changes segments and counts of frames before."""
        return self._annotations.book.was_corrected

    async def close(self) -> None:
        """Release the analyzer."""
        with suppress(WorkerDiedError, JobFailedError):
            await self.analyzer.close()

    # -- the main loop ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Analyse all stored chunks and all that follow, until :meth:`end`."""
        try:
            self._snapshot = await self._disk(self._store.load)
            await self._until_done(self._resume)
            while not await self._until_done(self._step):
                pass
        except _NoAnalysisError as error:
            self.trouble = str(error)
            self._leave_out_rest()
            self.order = ReorderBuffer(self._resources.gap_wait_s, self._archive.stored().end)
        finally:
            self.done = True
            for index in tuple(self._decoded):
                self._release(index)
            if self._saving is not None:
                await asyncio.wait([self._saving])
            self._stepped.set()

    async def first_need(self) -> None:
        """Wait for the first chunk or the end: a stream without frames takes nothing of a worker."""
        while not (self._archive.stored() or self.order.ended):
            self._wake.clear()
            await self._wait(None)

    async def _wait(self, timeout_s: float | None) -> None:
        self.idle = timeout_s is None and not self.order.backlog and self._saving_is_done
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        finally:
            self.idle = False

    @property
    def _saving_is_done(self) -> bool:
        return self._saving is None or self._saving.done()

    async def _until_done(self, work: Callable[[], Awaitable[bool | None]]) -> bool:
        """Repeat ``work`` until it succeeds; after each failure continue from the last snapshot.

        Raises:
            _NoAnalysisError: the stream has ended, and there is no process that could analyse it.
        """
        failures = 0
        while True:
            try:
                return bool(await work())
            except WorkerStartError as error:
                if error.final:
                    await self._without_analysis(str(error))
            except (WorkerDiedError, JobFailedError) as error:
                log.warning(
                    "stream %s: %s; its analysis continues from an earlier state", self.about.data_id, error
                )
                failures += 1
                if work == self._resume:
                    await self._discard_state(failures, str(error))
                elif failures % MOST_FAILURES == 0:
                    await self._without_analysis(f"the analysis fails repeatedly: {error}")
            except OSError as error:
                log_failure(
                    log,
                    error,
                    "stream %s: results could not be stored; they are computed again",
                    self.about.data_id,
                )
                await asyncio.sleep(DISK_PAUSE_S)
            if work == self._resume:
                await asyncio.sleep(DISK_PAUSE_S)
            else:
                await self._until_done(self._resume)

    async def _discard_state(self, failures: int, why: str) -> None:
        """After every ``OPENING_TRIES`` failures, discard the stored state: the analysis starts again without it.

        If there is none any more, the analysis waits or ends.
        """
        if failures % OPENING_TRIES:
            return
        if self._snapshot is not None:
            log.error(
                "stream %s: its analysis can't continue from its stored state, and begins again: %s",
                self.about.data_id,
                why,
            )
            self._snapshot = None
        else:
            await self._without_analysis(f"the analysis can't begin: {why}")

    async def _without_analysis(self, why: str) -> None:
        """Show why nothing is analysed, and wait for the time of another try, or for the end of the stream."""
        if not self.trouble:
            log.error("stream %s: it is stored, but not analysed: %s", self.about.data_id, why)
        self.trouble = why
        loop = asyncio.get_running_loop()
        until = loop.time() + RETRY_S
        while not self.order.ended and loop.time() < until:
            self._wake.clear()
            self._leave_out_rest()
            await self._wait(until - loop.time())
        if self.order.ended:
            raise _NoAnalysisError(why)

    def _leave_out_rest(self) -> None:
        """Count all stored chunks without results as missing, because nothing analyses them."""
        for index in tuple(self._decoded):
            self._release(index)
        geometry, analysed = self._archive.geometry, self._store.log.analysed
        if geometry is not None and analysed < self._archive.n_frames():
            rest = self._archive.stored()
            rest.discard_range(0, analysed // geometry.chunk_size - 1)
            self.missing.add_all(rest, NO_ANALYSIS)
        self._feed.notify()

    async def _resume(self) -> None:
        """Restore the analyzer from the last snapshot (None: a new one), with all later chunks to analyse."""
        saved, ended = self._snapshot or Snapshot(), self.order.ended
        passed = IndexSet.parse(saved.passed, max_index=MAX_CHUNK_INDEX)
        self.order = ReorderBuffer(self._resources.gap_wait_s, saved.next_index, passed)
        self.order.ended = ended
        self.order.add_all(self._archive.stored())
        self.missing = MissingIndices(saved.missing)
        self._sent = saved.sent
        self._snapshot_at = asyncio.get_running_loop().time()
        await self.analyzer.open(self.about, self._annotations.calibration, saved.state)
        await self.analyzer.annotate(saved.entries)
        self.trouble = ""
        self._begun = True
        self._note_step()  # chunks that the snapshot has are handled

    async def _step(self) -> bool:
        self._wake.clear()
        now = asyncio.get_running_loop().time()
        step = self.order.next_step(now)
        if step is not None:
            await self._send_annotations()
            await self._analyse(step)
            self._note_step()
        elif self.order.ended:
            await self._finish()
            return True
        else:
            await self._wait(self.order.due(now))
        return False

    def _note_step(self) -> None:
        self._at = None
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()

    async def handled(self, index: int) -> None:
        """Return once chunk ``index`` was analysed or left out, or the analysis has ended."""
        while not self.done and (not self._begun or index == self._at or index in self.order.waiting):
            await self._stepped.wait()

    async def _finish(self) -> None:
        """End the analysis; without its last fits if these failed repeatedly."""
        if self._failed_ends >= TRIES:
            log.error(
                "stream %s: the last fits of its analysis failed %d times and are left out; the results before them "
                "are valid",
                self.about.data_id,
                TRIES,
            )
            return
        self._failed_ends += 1
        await self._send_annotations()
        await self.analyzer.finish(self._keep_final)

    async def _send_annotations(self) -> None:
        """Send new annotations to the analyzer. Their time in the stream is known once there is a frame."""
        origin, count = self._archive.origin_unix_ms, len(self._annotations.entries)
        if origin is not None and count > self._sent:
            await self.analyzer.annotate(self._annotations.for_analysis(self._sent, origin))
            self._sent = count

    async def _analyse(self, step: NextStep) -> None:
        if step.kind == "gap":
            await self.analyzer.skip(step.last + 1)
        elif self._crashes[step.first] >= TRIES:
            await self._leave_out(step.first, CRASHED, f"its analysis failed {TRIES} times")
        else:
            await self._try_chunk(step)

    async def _try_chunk(self, step: NextStep) -> None:
        index = self._at = step.first
        self._crashes[index] += 1
        try:
            await (self._late(index) if step.kind == "late" else self._chunk(index))
        except JobFailedError as error:
            if error.kind != "shard":
                raise
            await self._leave_out(index, UNREADABLE, str(error))
        finally:
            self._release(index)
        del self._crashes[index]
        self._resources.spans.end((self.about.data_id, index))
        self._stored_ms.pop(index, None)

    async def _leave_out(self, index: int, reason: str, why: str) -> None:
        log.error("stream %s: chunk %d is left out: %s", self.about.data_id, index, why)
        await self.analyzer.skip(index + 1)
        self.missing.add(index, reason)
        self._resources.spans.end((self.about.data_id, index), f"left out: {reason}")
        if reason == UNREADABLE:
            self._archive.note_unreadable(index, why)
        self._feed.notify()

    async def _chunk(self, index: int) -> None:
        self._now_chunk = index
        due = asyncio.get_running_loop().time() - self._snapshot_at > self.snapshot_s
        state = await self.analyzer.chunk(index, self._decoded.get(index), self._keep, state=due)
        stored_unix_ms = self._stored_ms.get(index)
        if stored_unix_ms is not None:
            self._resources.note_delay(time.time() - stored_unix_ms / 1000.0)
        if state is not None:
            self._save(state)

    def _save(self, analyzer: AnalyzerState) -> None:
        self._snapshot = Snapshot(
            state=analyzer.state,
            entries=analyzer.entries,
            next_index=self.order.next_index,
            passed=str(self.order.passed),
            sent=self._sent,
            missing=self.missing.parts(),
        )
        self._snapshot_at = asyncio.get_running_loop().time()
        # A separate task saves it: on a busy disk, syncing dozens of files may take longer than a chunk lasts.
        if self._saving_is_done:
            self._saving = asyncio.create_task(self._save_on_disk(self._snapshot))

    async def _save_on_disk(self, snapshot: Snapshot) -> None:
        try:
            await self._disk(self._store.save, snapshot)
            self.saved()
        except OSError as error:
            log_failure(
                log,
                error,
                "stream %s: the state of the analysis could not be saved; an older one is kept",
                self.about.data_id,
            )

    async def _late(self, index: int) -> None:
        await self.analyzer.late(index, self._keep_columns)
        self.missing.add(index, LATE)
        self._feed.notify()

    # -- results ---------------------------------------------------------------------------------

    async def _keep(self, batch: AnalyzerBatch) -> None:
        await self._publish(batch, self._stored_ms.get(self._now_chunk), final=False)

    async def _keep_final(self, batch: AnalyzerBatch) -> None:
        await self._publish(batch, None, final=True)

    async def _publish(self, batch: AnalyzerBatch, stored_unix_ms: float | None, *, final: bool) -> None:
        events, chunk = self._annotations.book.names(), self._now_chunk
        message = await self._disk(
            lambda: self._store.add_batch(
                batch, events, chunk=chunk, stored_unix_ms=stored_unix_ms, final=final
            )
        )
        if message is not None:
            self._feed.publish(message)

    async def _keep_columns(self, batch: AnalyzerBatch) -> None:
        def keep() -> None:
            self._store.write_columns(batch)
            self._store.share_columns(batch, replaces=False)

        await self._disk(keep)

    async def _disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in(self._resources.threads, call, *args, **kwargs)

    def _release(self, index: int) -> None:
        decoded = self._decoded.pop(index, None)
        if decoded is not None:
            self._resources.frames.release(decoded.block)
