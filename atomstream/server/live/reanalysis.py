"""A stream's frames once more, from the first: after late chunks, when asked for, or for regions set meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable

from atomstream.index_ranges import IndexSet
from atomstream.results import Plain
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.analyzer_client import AnalysisResources, AnalyzerClient
from atomstream.server.live.annotations import Annotations
from atomstream.server.live.result_store import ResultStore
from atomstream.server.live.waterfall import Waterfall
from atomstream.server.live.worker_pool import JobFailedError, WorkerDiedError
from atomstream.server.streams.ingest import run_in

log = logging.getLogger("atomstream.server")
TRIES = 3


class Reanalysis:
    """One such run, chunk by chunk among the live ones. Columns are replaced as it goes; nothing is published.

    ``only`` names the columns (and lines' waterfalls) to renew, None all of them. ``tell`` hears of progress (0-1).
    """

    def __init__(
        self,
        archive: StreamArchive,
        about: StreamMetadata,
        means: AnalysisResources,
        store: ResultStore,
        inputs: Annotations,
        tell: Callable[[float], None],
        only: frozenset[str] | None = None,
    ) -> None:
        self._archive = archive
        self._about = about
        self._means = means
        self._store = store
        self._inputs = inputs
        self._tell = tell
        self._only = only
        self._stopped = False
        self._waterfalls: dict[str, Waterfall] = {}
        self._last: Plain = {}
        self._events: list[Plain] = []
        self._bad: set[int] = set()
        self.indices = IndexSet()
        """The chunks that it takes in, known once it runs."""

    @property
    def missing(self) -> dict[int, str]:
        """The chunks that it could not take in."""
        return dict.fromkeys(sorted(self._bad), "unreadable")

    @property
    def is_whole(self) -> bool:
        """Whether it renews all results, not those of some regions alone."""
        return self._only is None

    def stop(self) -> None:
        """Have it end at the next chunk."""
        self._stopped = True

    async def run(self) -> Plain | None:
        """All chunks that are stored now; the last batch with all events in it, None where it was stopped."""
        for _ in range(TRIES):
            try:
                return await self._run()
            except (WorkerDiedError, JobFailedError) as error:
                log.warning("stream %s: its second analysis begins anew: %s", self._about.data_id, error)
        log.error("stream %s can't be analysed again; its results are as they were", self._about.data_id)
        return None

    async def _run(self) -> Plain | None:
        analyst = AnalyzerClient(f"{self._about.data_id} again {id(self)}", self._archive, self._means)
        self._waterfalls, self._events = {}, []
        try:
            await self._all_chunks(analyst)
            if self._stopped:
                return None
            await analyst.finish(self._keep)
        finally:
            await _let_go(analyst)
        self._hang_waterfalls()
        return {**self._last, "events": self._events}

    def _hang_waterfalls(self) -> None:
        for name, waterfall in self._waterfalls.items():
            if self._only is None or name in self._only:
                known = self._store.waterfalls.get(name)
                if known is not None:  # the live analysis has gone on meanwhile
                    waterfall.follow(known)
                self._store.waterfalls[name] = waterfall

    async def _all_chunks(self, analyst: AnalyzerClient) -> None:
        await analyst.open(self._about, self._inputs.last("calibration", {}))
        await analyst.tell(self._words())
        indices = self.indices = self._archive.stored()
        count = len(indices)
        for done, index in enumerate(indices):
            if self._stopped:
                return
            await analyst.skip(index)
            if index not in self._bad:
                await self._chunk(analyst, index)
            self._tell((done + 1) / count)

    def _words(self) -> list[Plain]:
        # Regions and calibration hold from the start now, as they were said last; events where they were.
        origin = self._archive.origin_unix_ms or 0.0
        said = self._inputs.for_analysis(0, origin)
        regions = [word for word in said if word["what"] == "regions"][-1:]
        return [*regions, *(word for word in said if word["what"] == "event")]

    async def _chunk(self, analyst: AnalyzerClient, index: int) -> None:
        self._bad.add(index)  # until it has done no harm
        try:
            await analyst.chunk(index, None, self._keep)
        except JobFailedError as error:
            if error.kind != "shard":
                raise
            log.error("stream %s: chunk %d is passed over: %s", self._about.data_id, index, error)
        else:
            self._bad.discard(index)

    async def _keep(self, batch: Plain) -> None:
        self._last = batch
        self._events += batch["events"]
        await run_in(self._means.threads, self._write, batch)

    def _write(self, batch: Plain) -> None:
        self._store.replace_columns(batch, self._only)
        self._store.note_profiles(batch, self._waterfalls)


async def _let_go(analyst: AnalyzerClient) -> None:
    try:
        await analyst.close()
    except (WorkerDiedError, JobFailedError):
        log.debug("the worker of a second analysis is gone already")
