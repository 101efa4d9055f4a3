"""Everything about one stream's results: the live analysis, analyses again, and what users say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine
from typing import Any, Final

from atomstream.results import Plain, column_name
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.annotations import Annotations, as_event
from atomstream.server.live.feed import Feed, Message
from atomstream.server.live.live_analysis import LiveAnalysis
from atomstream.server.live.messages import check_regions
from atomstream.server.live.reanalysis import Reanalysis
from atomstream.server.live.result_store import REANALYSIS, ResultStore
from atomstream.server.streams.ingest import run_in

log = logging.getLogger("atomstream.server")
SETTLE_S: Final = 1.0
"""After the last of some late chunks, before a finished stream is analysed again."""
SPECULAR: Final = ("intensity", "background", "x", "y")


class StreamResults:
    """One stream's results. Belongs to the server's loop; made by :meth:`open`."""

    def __init__(
        self,
        archive: StreamArchive,
        about: StreamMetadata,
        means: AnalysisResources,
        store: ResultStore,
        inputs: Annotations,
    ) -> None:
        self.archive = archive
        self.about = about
        self.store = store
        self.inputs = inputs
        self.feed = Feed(store.seq)
        self.readers = 0
        """How many follow the feed right now."""
        self._means = means
        self._live: LiveAnalysis | None = None
        self._again: Reanalysis | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: asyncio.TimerHandle | None = None
        self._came_after: dict[int, str] = {}
        self._saying = asyncio.Lock()
        self._again_turn = asyncio.Lock()

    @classmethod
    async def open(
        cls, archive: StreamArchive, about: StreamMetadata, means: AnalysisResources
    ) -> StreamResults:
        """Take up what is on the disk; raises OSError."""

        def files() -> tuple[ResultStore, Annotations]:
            store = ResultStore(archive, about.fps)
            return store, Annotations(store.folder / "inputs.log")

        return cls(archive, about, means, *await run_in(means.threads, files))

    # -- the analysis ------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """``waiting``, ``running``, ``ended`` or ``none``."""
        if self._live is not None or (self._again is not None and self._again.is_whole):
            return "running" if self.store.analysed else "waiting"
        return "ended" if self.store.ended else "none"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes, as things are."""
        return not self._tasks and self._settling is None

    @property
    def detected_regions(self) -> list[Plain]:
        """The regions that the analysis uses itself, where they were last."""
        regions: list[Plain] = self.store.newest["detected_regions"]
        return regions

    @property
    def backlog(self) -> int:
        """Stored chunks that wait for their analysis."""
        return self._live.order.backlog if self._live is not None else 0

    @property
    def reanalysis_pending(self) -> bool:
        """Whether the whole stream is being analysed again, or is about to be."""
        return self._settling is not None or (self._again is not None and self._again.is_whole)

    @property
    def missing(self) -> dict[int, str]:
        """Stored chunks that the results lack, and why: ``"late"`` or ``"unreadable"``."""
        known = self.store.missing if self._live is None else self._live.missing
        return {**known, **self._came_after}

    async def take_up(self) -> None:
        """Go on with what an earlier process left."""
        if await run_in(self._means.threads, self.store.left_running) == REANALYSIS:
            self.reanalyse()
        else:
            self.begin()

    def begin(self) -> None:
        """Analyse the stream live, from where an earlier process may have left it."""
        if self._live is None:
            self._live = LiveAnalysis(
                self.archive, self.about, self._means, self.store, self.inputs, self.feed
            )
            self._start(self._run_live(self._live))

    async def _run_live(self, live: LiveAnalysis) -> None:
        await run_in(self._means.threads, self.store.begin)
        await live.run()
        self._note_late(live.order.waiting)  # stored in the very moment of its end
        missing = live.missing
        if live.filled_late or live.calibrated_late:
            missing = await self._run_again(missing)
        await live.close()
        self._live = None
        await self._end(missing)

    async def _end(self, missing: dict[int, str]) -> None:
        await run_in(self._means.threads, self.store.end)
        await self._tell({"type": "end", "missing": list(missing.items())})
        if self._settling is not None:  # there is more to do, and a server that dies now has to know
            await run_in(self._means.threads, self.store.begin, REANALYSIS)

    async def _tell(self, record: Plain) -> None:
        self.feed.publish(await run_in(self._means.threads, self.store.add, record))

    def wants(self, index: int) -> bool:
        """Whether decoded frames of that chunk are of use right now."""
        return self._live is not None and self._live.wants(index)

    def stored(self, index: int, decoded: DecodedChunk | None) -> None:
        """Analyse chunk ``index``, which is in the archive. The analysis owns ``decoded`` from now on."""
        if self._live is not None and not self._live.done:
            self._live.stored(index, decoded)
            return
        if decoded is not None:
            self._means.frames.release(decoded.block)
        self._note_late([index])

    def _note_late(self, indices: Collection[int]) -> None:
        self._came_after.update(dict.fromkeys(indices, "late"))
        if indices:
            self._settle()

    def end(self) -> None:
        """No more chunks come."""
        if self._live is not None:
            self._live.end()

    def _settle(self) -> None:
        # Chunks after the end come in bunches, and each would begin it anew.
        if self._settling is not None:
            self._settling.cancel()
        else:
            self._start(run_in(self._means.threads, self.store.begin, REANALYSIS))
            self.feed.ring()
        self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settling = None
        if not self.reanalyse():
            self._settle()

    def reanalyse(self) -> bool:
        """Analyse the stored frames from the first; False where an analysis runs already."""
        if self._live is not None or self._again is not None:
            return False
        self._again = self._make_again(None)  # from now on, so that a second wish finds one under way
        self._start(self._again_to_its_end())
        return True

    async def _again_to_its_end(self) -> None:
        await run_in(self._means.threads, self.store.begin, REANALYSIS)
        await self._end(await self._run_again(self.missing))

    async def _run_again(self, missing: dict[int, str]) -> dict[int, str]:
        """Analyse all again; returns what the results lack after it: where it fails, what they lacked before."""
        again = self._make_again(None)
        batch = await self._run_one(again)
        if batch is None:
            return missing
        await self._publish_again(batch)
        for index in tuple(self._came_after):
            if index in again.indices:
                del self._came_after[index]
        return again.missing

    async def _run_one(self, again: Reanalysis) -> Plain | None:
        running = self._again
        # Regions wait for a whole analysis: cut short, it would leave half of one and half of another.
        if running is None or again.is_whole or not running.is_whole:
            if running is not None:
                running.stop()
            self._again = again
        async with self._again_turn:
            self._again = again
            try:
                return await again.run()
            finally:
                if self._again is again:
                    self._again = None
                    self._progress(None)

    async def _publish_again(self, batch: Plain) -> None:
        frames = self.archive.n_frames()
        final = {**batch, "start": frames, "count": 0, "columns": {}, "fed": frames}
        events = self.inputs.events(self.archive.origin_unix_ms)
        message = await run_in(
            self._means.threads,
            lambda: self.store.add_batch(
                final, events, chunk=None, stored_unix_ms=None, final=True, reanalysis=True
            ),
        )
        if message is not None:
            self.feed.publish(message)

    def _make_again(self, only: frozenset[str] | None) -> Reanalysis:
        return Reanalysis(
            self.archive, self.about, self._means, self.store, self.inputs, self._progress, only
        )

    def _progress(self, fraction: float | None) -> None:
        self.feed.progress = fraction
        self.feed.ring()

    # -- what users say ----------------------------------------------------------------------------------

    async def mark(
        self, kind: str, label: str, time_ms_utc: float | None, value: float | None, event_id: str | None
    ) -> Plain:
        """Keep an event, tell followers and the analysis; returns it. A repeat of its id changes nothing."""
        at = 1000.0 * time.time() if time_ms_utc is None else time_ms_utc
        async with self._saying:
            before = len(self.inputs.words)
            word = await run_in(self._means.threads, self.inputs.event, kind, label, at, value, event_id)
            event = as_event(word, self.archive.origin_unix_ms)
            if len(self.inputs.words) > before:
                await self._tell({"type": "event", "event": event})
        self._news()
        return event

    async def set_regions(self, regions: list[Plain]) -> list[Plain]:
        """Replace the user's regions; their traces are computed back to the first frame in the background.

        Raises:
            ConfigError: regions that can't be meant; nothing was changed.
        """
        checked = check_regions(regions)
        async with self._saying:
            await run_in(self._means.threads, self.inputs.say, {"what": "regions", "regions": checked})
            await self._tell(
                {
                    "type": "regions",
                    "regions": checked,
                    "detected_regions": self.detected_regions,
                    "complete": False,
                }
            )
        self._news()
        self._trace_back(checked)
        return checked

    async def _tell_regions(self, regions: list[Plain], *, complete: bool) -> None:
        detected = self.detected_regions
        await self._tell(
            {"type": "regions", "regions": regions, "detected_regions": detected, "complete": complete}
        )

    async def calibrate(self, calibration: Plain) -> None:
        """Set the calibration: of a running analysis from now on, of an ended one by analysing it again."""
        await self.say({"what": "calibration", "calibration": calibration})
        whole_again = self._again is not None and self._again.is_whole
        if whole_again or (self._live is None and self.store.ended):
            self._settle()

    async def say(self, word: Plain) -> None:
        """Keep a word of another kind: an azimuth's label."""
        async with self._saying:
            await run_in(self._means.threads, self.inputs.say, word)
        self._news()

    def _news(self) -> None:
        if self._live is not None:
            self._live.news()

    def _trace_back(self, regions: list[Plain]) -> None:
        if regions and self.archive.stored():
            self._start(self._run_trace_back(regions))

    async def _run_trace_back(self, regions: list[Plain]) -> None:
        done = await self._run_one(self._make_again(_renewed_by(regions)))
        # Regions that were changed meanwhile are not these any more: a page would show what its user has removed.
        if done is not None and self.inputs.last("regions", []) == regions:
            await self._tell(
                {
                    "type": "regions",
                    "regions": regions,
                    "detected_regions": self.detected_regions,
                    "complete": True,
                }
            )

    # -- reading -----------------------------------------------------------------------------------------

    async def message(self, seq: int, columns: frozenset[str] | None) -> Message:
        """The numbered message, from memory or from the disk."""
        recent = self.feed.recent(seq)
        if recent is not None:
            return recent
        return Message(await run_in(self._means.threads, self.store.message, seq, columns))

    # -- its tasks ---------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"results of {self.about.data_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.feed.ring()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the analysis of stream %s failed", self.about.data_id, exc_info=error)

    async def close(self) -> None:
        """Stop where it is: the next start of the server takes it up from the last snapshot."""
        self.feed.close()
        if self._settling is not None:
            self._settling.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.store.close()
        self.inputs.close()


def _renewed_by(regions: list[Plain]) -> frozenset[str]:
    """The columns and lines that these regions have."""
    names: set[str] = set()
    for region in regions:
        if region["type"] == "line":
            names.add(region["name"])
        elif region["name"] == "specular":
            names.update(f"specular_{part}" for part in SPECULAR)
        else:
            names.add(column_name(f"region:{region['name']}"))
    return frozenset(names)
