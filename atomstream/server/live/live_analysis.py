"""The live analysis of one stream: takes its chunks in order to an analyst, and what comes back to store and feed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from atomstream.results import Plain
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.analyzer_client import AnalysisResources, AnalyzerClient, DecodedChunk
from atomstream.server.live.annotations import Annotations
from atomstream.server.live.chunk_order import NextStep, ReorderBuffer, saved_indices
from atomstream.server.live.feed import Feed
from atomstream.server.live.result_store import ResultStore
from atomstream.server.live.worker_pool import JobFailedError, WorkerDiedError
from atomstream.server.streams.ingest import run_in

log = logging.getLogger("atomstream.server")
P = ParamSpec("P")
T = TypeVar("T")
SNAPSHOT_S: Final = 10.0
"""How much analysis is done again after a crash, in s."""
TRIES: Final = 2
"""How often one chunk may take its worker down before it is passed as missing."""
AHEAD_S: Final = 1.0
"""Chunks whose turn is no further off, and the next one, are kept decoded: short ones arrive by the half dozen."""
DISK_PAUSE_S: Final = 1.0
WARM_UP_S: Final = 0.7


class LiveAnalysis:
    """What runs while a stream is analysed. Belongs to the server's loop; :meth:`run` until its end.

    A crash of the worker, a fault of the analysis or of the disk: all go back to the last snapshot, from where
    the same results are made again; the store tells which of them were recorded before.
    """

    def __init__(
        self,
        archive: StreamArchive,
        about: StreamMetadata,
        means: AnalysisResources,
        store: ResultStore,
        inputs: Annotations,
        feed: Feed,
    ) -> None:
        self.about = about
        self.order = ReorderBuffer(means.gap_wait_s)
        self.missing: dict[int, str] = {}
        """Chunks that the fits lack, and why: ``"late"`` or ``"unreadable"``."""
        self.done = False
        """Whether :meth:`run` is over: what comes now is not taken in."""
        self.analyst = AnalyzerClient(about.data_id, archive, means)
        self._archive = archive
        self._means = means
        self._store = store
        self._inputs = inputs
        self._feed = feed
        self._told = 0
        self._wake = asyncio.Event()
        self._given: dict[int, DecodedChunk] = {}
        self._stored_ms: dict[int, float] = {}
        self._crashes: Counter[int] = Counter()
        self._snapshot: Plain | None = None
        self._snapshot_at = 0.0
        self._now_chunk = -1
        self._saving: asyncio.Task[None] | None = None

    # -- what it is told ---------------------------------------------------------------------------------

    def wants(self, index: int) -> bool:
        """Whether that chunk's turn is so near that keeping its frames decoded is worth the memory."""
        size = self._archive.geometry.chunk_size if self._archive.geometry else 1
        ahead = max(1, int(AHEAD_S * self.about.fps / size))
        return not self.done and 0 <= index - self.order.next_index <= ahead

    def stored(self, index: int, decoded: DecodedChunk | None) -> None:
        """Analyse chunk ``index``, which is in the archive. The analysis owns ``decoded`` from now on."""
        if index < self.order.next_index:
            # It was analysed, is being analysed or was passed: its frames are read from the archive if at all. The
            # block of a chunk that a worker reads at this moment must not be replaced or released.
            if decoded is not None:
                self._means.frames.release(decoded.block)
        else:
            self._drop(index)
            if decoded is not None:
                self._given[index] = decoded
        self._stored_ms[index] = 1000.0 * time.time()
        self.order.add(index)
        self._wake.set()

    def end(self) -> None:
        """No more chunks come."""
        self.order.ended = True
        self._wake.set()

    def news(self) -> None:
        """The user said something."""
        self._wake.set()

    @property
    def filled_late(self) -> bool:
        """Whether the fits lack frames that came too late."""
        return "late" in self.missing.values()

    @property
    def calibrated_late(self) -> bool:
        """Whether a calibration was said that the analysis, which was ending, did not hear."""
        return any(word["what"] == "calibration" for word in self._inputs.words[self._told :])

    async def close(self) -> None:
        """Let the analyser go."""
        with suppress(WorkerDiedError, JobFailedError):
            await self.analyst.close()

    # -- the pump ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Analyse all there is and all that comes, until :meth:`end`."""
        try:
            await self._first_need()
            self._snapshot = await self._disk(self._store.load)
            await self._until_done(self._resume)
            while not await self._until_done(self._step):
                pass
        finally:
            self.done = True
            for index in tuple(self._given):
                self._drop(index)
            if self._saving is not None:
                await asyncio.wait([self._saving])

    async def _first_need(self) -> None:
        # A worker takes a second to start. It is ready when the first chunk comes, which is usually 2 s after the
        # stream's creation; a stream that is given up at once costs none.
        if not self._archive.stored():
            with suppress(TimeoutError):
                async with asyncio.timeout(WARM_UP_S):
                    await self._wake.wait()

    async def _until_done(self, work: Callable[[], object]) -> bool:
        """``work`` until it succeeds, from the last snapshot after each failure."""
        while True:
            try:
                return bool(await work())  # type: ignore[misc]
            except (WorkerDiedError, JobFailedError) as error:
                log.warning(
                    "stream %s: %s; its analysis goes on from an earlier state", self.about.data_id, error
                )
            except OSError:
                log.exception("stream %s: results can't be stored; they are made again", self.about.data_id)
                await asyncio.sleep(DISK_PAUSE_S)
            if work == self._resume:
                await asyncio.sleep(DISK_PAUSE_S)
            else:
                await self._until_done(self._resume)

    async def _resume(self) -> None:
        """Have the analyst as it was at the last snapshot (None: new), and all later chunks before it."""
        known, ended = self._snapshot or {}, self.order.ended
        self.order = ReorderBuffer(
            self._means.gap_wait_s, known.get("next_index", 0), saved_indices(known.get("passed", ""))
        )
        self.order.ended = ended
        self.order.add_all(self._archive.stored())
        self.missing = dict(known.get("missing", ()))
        self._told = int(known.get("told", 0))
        self._snapshot_at = asyncio.get_running_loop().time()
        calibration = self._inputs.last("calibration", {})
        await self.analyst.open(self.about, calibration, known.get("state"))
        await self.analyst.tell(known.get("words", []))

    async def _step(self) -> bool:
        self._wake.clear()
        now = asyncio.get_running_loop().time()
        step = self.order.take(now)
        if step is not None:
            await self._tell_news()
            await self._take(step)
        elif self.order.ended:
            await self._tell_news()
            await self.analyst.finish(self._keep_final)
            return True
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.order.due(now)):
                    await self._wake.wait()
        return False

    async def _tell_news(self) -> None:
        """Pass on the user's words; their place in time is known once there is a frame."""
        origin, count = self._archive.origin_unix_ms, len(self._inputs.words)
        if origin is not None and count > self._told:
            await self.analyst.tell(self._inputs.for_analysis(self._told, origin))
            self._told = count

    async def _take(self, step: NextStep) -> None:
        if step.kind == "gap":
            await self.analyst.skip(step.last + 1)
        elif self._crashes[step.first] >= TRIES:
            await self._pass_over(step.first, f"it ended its worker {TRIES} times")
        else:
            await self._try_chunk(step)

    async def _try_chunk(self, step: NextStep) -> None:
        index = step.first
        self._crashes[index] += 1
        try:
            await (self._late(index) if step.kind == "late" else self._chunk(index))
        except JobFailedError as error:
            if error.kind != "shard":
                raise
            await self._pass_over(index, str(error))
        finally:
            self._drop(index)
        del self._crashes[index]
        self._stored_ms.pop(index, None)

    async def _pass_over(self, index: int, why: str) -> None:
        log.error("stream %s: chunk %d is passed over: %s", self.about.data_id, index, why)
        await self.analyst.skip(index + 1)
        self.missing[index] = "unreadable"
        self._feed.ring()

    async def _chunk(self, index: int) -> None:
        self._now_chunk = index
        due = asyncio.get_running_loop().time() - self._snapshot_at > SNAPSHOT_S
        snapshot = await self.analyst.chunk(index, self._given.get(index), self._keep, state=due)
        if snapshot is not None:
            self._save(snapshot)

    def _save(self, snapshot: Plain) -> None:
        self._snapshot = {
            **snapshot,
            "next_index": self.order.next_index,
            "passed": str(self.order.passed),
            "told": self._told,
            "missing": list(self.missing.items()),
        }
        self._snapshot_at = asyncio.get_running_loop().time()
        # Beside the analysis: to sync dozens of files may take a busy disk longer than a chunk lasts.
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_on_disk(self._snapshot))

    async def _save_on_disk(self, snapshot: Plain) -> None:
        try:
            await self._disk(self._store.save, snapshot)
        except OSError:
            log.exception("stream %s: the analysis' state can't be kept; an older one is", self.about.data_id)

    async def _late(self, index: int) -> None:
        await self.analyst.late(index, self._keep_columns)
        self.missing[index] = "late"
        self._feed.ring()

    # -- what comes back ---------------------------------------------------------------------------------

    async def _keep(self, batch: Plain) -> None:
        facts = {"chunk": self._now_chunk, "stored_unix_ms": self._stored_ms.get(self._now_chunk)}
        await self._publish(batch, **facts, final=False)

    async def _keep_final(self, batch: Plain) -> None:
        await self._publish(batch, chunk=self._now_chunk, stored_unix_ms=None, final=True)

    async def _publish(self, batch: Plain, **facts: object) -> None:
        events = self._inputs.events(self._archive.origin_unix_ms)
        message = await self._disk(lambda: self._store.add_batch(batch, events, **facts))
        if message is not None:
            self._feed.publish(message)

    async def _keep_columns(self, batch: Plain) -> None:
        await self._disk(self._store.write_columns, batch)

    async def _disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in(self._means.threads, call, *args, **kwargs)

    def _drop(self, index: int) -> None:
        given = self._given.pop(index, None)
        if given is not None:
            self._means.frames.release(given.block)
