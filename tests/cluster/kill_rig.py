"""Kills parts of a real cluster while real clients stream to it, and compares everything with an undisturbed run."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
import uuid
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgpack
import numpy as np
import numpy.typing as npt

from atomstream import AsyncRHEEDStreamer
from atomstream.cluster.balancer import balancing
from atomstream.cluster.engine import Engine
from atomstream.cluster.engines import BUCKET
from atomstream.cluster.local_cluster import LocalCluster
from atomstream.cluster.nodes import AnalystNode, Node
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.live.messages import CurrentResults, StoredBatch
from atomstream.server.live.result_log import applied
from atomstream.server.live.shared_records import SharedEntry, decoded
from atomstream.server.ports.bus import Bus
from atomstream.server.ports.jetstream_log import JetStreamLog
from atomstream.server.ports.placement import partition_of
from atomstream.server.ports.store import Store
from atomstream.server.ports.store_url import open_store
from atomstream.server.ports.stream_log import StreamLog
from atomstream.shard import ShardLayout, iter_frames
from atomstream.sources import GrowthSpec, Simulator
from tests.cluster.undisturbed import undisturbed

FPS: Final = 30.0
CHUNK: Final = 60
SHORT_CHUNK: Final = 3
"""Frames in a chunk of every second stream: chunks of 0.1 s, which are merged in the store."""
SHAPE: Final = (120, 160)
START_MS: Final = 1_735_689_600_000.0
FROZEN_S: Final = 6.0
"""Longer than a pin of 3 s: the frozen process' streams are given to another one."""
DOWN_S: Final = 1.0
OUTAGE_S: Final = 30.0
LIMIT_S: Final = 180.0
"""Longest wait for results, on a busy machine."""
KINDS: Final = ("server", "analyst", "nats", "s3", "postgres", "frozen analyst")
OUTAGES: Final = ("nats away", "s3 away", "postgres away", "s3 frozen", "nats frozen")
"""A service that does not run, or does not answer, for ``OUTAGE_S``."""

Frames = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Outcome:
    """What was counted; all but the times must be 0."""

    lost: int = 0
    altered: int = 0
    unmerged: int = 0
    """Short chunks that still are objects of their own after the end."""
    without_result: int = 0
    doubled: int = 0
    gaps: int = 0
    differing: int = 0
    refused: int = 0
    hole_s: float = 0.0
    after_end_s: float = 0.0
    caught_up_s: float = 0.0
    """From the end of an outage until there were results of all that had been sent by then."""
    faults: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True if nothing is wrong."""
        wrong = ("lost", "altered", "unmerged", "without_result", "doubled", "gaps", "differing", "refused")
        return not any(getattr(self, name) for name in wrong)

    def __str__(self) -> str:
        return ", ".join(
            f"{one.name} {getattr(self, one.name)}" for one in fields(self) if one.name != "faults"
        )


def film(number: int, n_frames: int) -> Frames:
    """The frames of stream ``number``."""
    spec = GrowthSpec(*SHAPE, FPS, seed=10 + number, rate_ml_s=1.2)
    return np.concatenate(list(Simulator(spec).chunks(CHUNK, n_frames)))


@asynccontextmanager
async def running_cluster(folder: Path, servers: int = 2, analysts: int = 2) -> AsyncIterator[LocalCluster]:
    """A started cluster with its load balancer. ``folder`` can be entered by any user."""
    made = LocalCluster(folder, servers, analysts)
    async with balancing(made.port, [server.port for server in made.servers]):
        try:
            await asyncio.to_thread(made.start)
            yield made
        finally:
            for part in made.parts:
                await asyncio.to_thread(part.kill)


@contextmanager
def opened_store(cluster: LocalCluster) -> Iterator[Store]:
    """The bucket of the cluster."""
    before = {name: os.environ.get(name) for name in cluster.s3.environment}
    os.environ.update(cluster.s3.environment)
    try:
        store = open_store(f"s3://{BUCKET}?endpoint={cluster.s3.url}")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield store
    finally:
        store.close()


class Rig:
    """One run: streams, faults, and what is counted afterwards.

    ``n_chunks`` counts chunks of ``CHUNK`` frames; the streams with short ones have as many frames.
    """

    def __init__(self, cluster: LocalCluster, n_streams: int, n_chunks: int) -> None:
        self._cluster = cluster
        self._n_chunks = n_chunks
        self._films = [film(number, n_chunks * CHUNK) for number in range(n_streams)]
        self._sizes = [SHORT_CHUNK if number % 2 else CHUNK for number in range(n_streams)]
        """Frames in a chunk of each stream."""
        self._ids: list[str] = []
        self._seen_at: dict[str, list[float]] = {}
        self._reach: Counter[str] = Counter()
        """Frames of each stream up to which there were results."""
        self._came = asyncio.Event()
        self._turn: Counter[str] = Counter()
        self._sent = 0
        self._caught_up_s = 0.0

    async def run(self, faults: Sequence[str], folder: Path, pace: float = 1.0) -> Outcome:
        """Send all streams at ``pace`` times their own rate; the faults happen one after another meanwhile."""
        out = Outcome(faults=list(faults))
        async with self._streaming(out, folder) as streamer:
            breaking = asyncio.create_task(self._break(faults, self._n_chunks * CHUNK / FPS / pace))
            begun = time.monotonic()
            for index in range(self._n_chunks):
                await asyncio.sleep(max(0.0, begun + index * CHUNK / FPS / pace - time.monotonic()))
                await self._push(streamer, index)
            await breaking
        await self._compare(out, folder)
        return out

    async def run_steps(self, steps: Sequence[Sequence[str]], folder: Path) -> Outcome:
        """In each step the parts of it fail at once while one chunk of each stream is sent, until its results are here.

        The number of chunks is that of the steps and two more. Nothing waits for a time, so this takes as long as the
        computer needs.
        """
        assert self._n_chunks == len(steps) + 2
        out = Outcome(faults=[fault for step in steps for fault in step])
        async with self._streaming(out, folder) as streamer:
            await self._push(streamer, 0)
            await self._analysed(0)
            for index, step in enumerate(steps, 1):
                await self._fail_while(
                    step, partial(self._push, streamer, index), partial(self._analysed, index)
                )
            await self._push(streamer, len(steps) + 1)
        await self._compare(out, folder)
        return out

    # -- the streams -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _streaming(self, out: Outcome, folder: Path) -> AsyncIterator[AsyncRHEEDStreamer]:
        """A streamer with all streams, whose feeds are followed; at the end of the block all results are awaited."""
        async with AsyncExitStack() as stack:
            streamer = await stack.enter_async_context(
                AsyncRHEEDStreamer(
                    api_key=self._cluster.api_key, endpoint=self._cluster.url, spool_dir=folder / "spool"
                )
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "chunk_size=3 is 0.1 s")  # too short for the hosted service
                for number, size in enumerate(self._sizes):
                    data_id = await streamer.initialize(
                        fps=FPS, rotations_per_min=0.0, chunk_size=size, stream_name=f"stream {number}"
                    )
                    self._ids.append(data_id)
            watching = [asyncio.create_task(self._watch(data_id)) for data_id in self._ids]
            stack.push_async_callback(_cancel, watching)
            yield streamer
            reports = [await streamer.finalize(data_id) for data_id in self._ids]
            ended = time.monotonic()
            out.refused = sum(len(report["lost"]) + report["chunks_failed"] for report in reports)
            await asyncio.wait_for(asyncio.gather(*watching), LIMIT_S)
        out.after_end_s = round(max(at[-1] for at in self._seen_at.values()) - ended, 1)
        holes = [b - a for at in self._seen_at.values() for a, b in itertools.pairwise(at)]
        out.hole_s = round(max(holes, default=0.0), 1)
        out.caught_up_s = round(self._caught_up_s, 1)

    async def _push(self, streamer: AsyncRHEEDStreamer, index: int) -> None:
        for data_id, frames, size in zip(self._ids, self._films, self._sizes, strict=True):
            for start in range(index * CHUNK, (index + 1) * CHUNK, size):
                at = START_MS + 1000.0 * start / FPS
                await streamer.push(data_id, start // size, frames[start : start + size], at)
        self._sent = index + 1

    async def _analysed(self, index: int) -> None:
        """Return when the feeds of all streams have had the results of this chunk."""
        async with asyncio.timeout(LIMIT_S):
            while min(self._reach[data_id] for data_id in self._ids) < (index + 1) * CHUNK:
                self._came.clear()
                await self._came.wait()

    # -- faults ------------------------------------------------------------------------------------------

    async def _break(self, faults: Sequence[str], seconds: float) -> None:
        pause = (seconds - OUTAGE_S * sum(fault in OUTAGES for fault in faults)) / (len(faults) + 1)
        for fault in faults:
            await asyncio.sleep(pause)
            await self._cause(fault)

    async def _cause(self, fault: str) -> None:
        part = self._part(fault)
        if fault in OUTAGES:
            await self._outage(part, frozen=fault.endswith("frozen"))
            return
        if fault == "frozen analyst":
            part.pause()
            await asyncio.sleep(FROZEN_S)
            part.resume()
            return
        await asyncio.to_thread(part.kill)
        await asyncio.sleep(DOWN_S)
        await asyncio.to_thread(part.start)

    async def _outage(self, part: Engine, *, frozen: bool) -> None:
        await asyncio.to_thread(part.pause if frozen else part.kill)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(part.resume if frozen else part.start)
        begun = time.monotonic()
        await self._analysed(self._sent - 1)
        self._caught_up_s = max(self._caught_up_s, time.monotonic() - begun)

    async def _fail_while(
        self, step: Sequence[str], push: Callable[[], Awaitable[None]], done: Callable[[], Awaitable[None]]
    ) -> None:
        """Kill or freeze the parts of ``step`` during ``push``, until ``done``.

        Services that were killed start at once. The others have a second one, which goes on alone.
        """
        parts = [self._part(fault) for fault in step]
        frozen = [part for fault, part in zip(step, parts, strict=True) if fault == "frozen analyst"]
        killed = [part for part in parts if part not in frozen]
        services = [part for part in killed if not isinstance(part, Node)]
        try:
            for part in frozen:
                part.pause()
            await asyncio.gather(*(asyncio.to_thread(part.kill) for part in killed))
            await push()
            await asyncio.gather(*(asyncio.to_thread(part.start) for part in services))
            await done()
        finally:
            for part in frozen:
                part.resume()

    def _part(self, fault: str) -> Engine:
        """The part that fails: each of its kind in turn; of the analysis processes that with the first stream."""
        cluster = self._cluster
        group: dict[str, Sequence[Engine]] = {
            "server": cluster.servers,
            "analyst": cluster.analysts,
            "frozen analyst": cluster.analysts,
            "nats": [cluster.nats],
            "s3": [cluster.s3],
            "postgres": [cluster.postgres],
        }
        group |= {fault: group[fault.partition(" ")[0]] for fault in OUTAGES}
        owners = [part for part in group[fault] if isinstance(part, AnalystNode) and owns(part, self._ids[0])]
        if owners:
            return owners[0]
        self._turn[fault] += 1
        return group[fault][(self._turn[fault] - 1) % len(group[fault])]

    # -- results -----------------------------------------------------------------------------------------

    async def _watch(self, data_id: str) -> None:
        """Follow the feed through the load balancer, as a page does: after each loss of the connection again."""
        seen, last = self._seen_at.setdefault(data_id, []), 0
        url = f"{self._cluster.url}/rheed/stream/{data_id}/feed"
        async with aiohttp.ClientSession(headers={"X-API-KEY": self._cluster.api_key}) as session:
            while True:
                with suppress(aiohttp.ClientError):
                    protocols = ("atomstream.msgpack",)
                    async with session.ws_connect(
                        url, params={"after": str(last)}, protocols=protocols
                    ) as feed:
                        async for message in feed:
                            record = msgpack.unpackb(message.data)
                            if record["type"] == "batch":
                                last = record["seq"]
                                seen.append(time.monotonic())
                                self._reach[data_id] = record["start"] + record["count"]
                                self._came.set()
                        if feed.close_code == 1000:
                            return
                await asyncio.sleep(0.1)

    # -- afterwards --------------------------------------------------------------------------------------

    async def _compare(self, out: Outcome, folder: Path) -> None:
        bus = await Bus.connect(self._cluster.nats.url)
        try:
            with opened_store(self._cluster) as store:
                for data_id, frames, size in zip(self._ids, self._films, self._sizes, strict=True):
                    await _until_merged(SharedStream(store, data_id), out)
                    await asyncio.to_thread(self._compare_chunks, store, data_id, frames, size, out)
                expected = await undisturbed(store, self._ids, folder / f"alone-{uuid.uuid4().hex[:8]}")
            for data_id in self._ids:
                found = await entries(JetStreamLog(bus, "results"), data_id)
                self._compare_results(found, expected[data_id], out)
        finally:
            await bus.close()

    def _compare_chunks(self, store: Store, data_id: str, frames: Frames, size: int, out: Outcome) -> None:
        stored = SharedStream(store, data_id)
        stored.read_about()
        found = stored.listing().chunks
        for index in range(len(frames) // size):
            if index not in found:
                out.lost += 1
                continue
            body, read = stored.chunk(index), np.zeros((size, *SHAPE), np.uint8)

            def fetch(offset: int, nbytes: int, body: bytes = body) -> bytes:
                return body[offset : offset + nbytes]

            layout = ShardLayout.fetch(fetch, len(body), (size, *SHAPE), "uint8", size)
            for k, frame in iter_frames(fetch, layout, range(size)):
                read[k] = frame
            out.altered += not np.array_equal(read, frames[index * size : (index + 1) * size])
        as_zarr = zarr_frames(store, data_id)
        out.altered += as_zarr.shape != frames.shape or not np.array_equal(as_zarr, frames)

    def _compare_results(self, found: list[SharedEntry], expected: list[SharedEntry], out: Outcome) -> None:
        numbers = [entry.number for entry in found if entry.number]
        out.gaps += sum(number != k for k, number in enumerate(numbers, 1))
        covered = np.zeros(self._n_chunks * CHUNK, int)
        for entry in found:
            if isinstance(entry.record, StoredBatch):
                covered[entry.start : entry.start + entry.count] += 1
        out.without_result += int((covered == 0).sum())
        out.doubled += int((covered > 1).sum())
        made, right = batches(found), batches(expected)
        out.differing += sum(made.get(key) != value for key, value in right.items())
        out.differing += len(made.keys() - right.keys())


async def _until_merged(stored: SharedStream, out: Outcome) -> None:
    """Wait until the process that analyses an ended stream has merged its short chunks; count those that stay."""
    await asyncio.to_thread(stored.read_about)
    if stored.grid.n_chunks == 1:
        return
    until = time.monotonic() + LIMIT_S
    while single := await asyncio.to_thread(stored.single_chunks):
        if time.monotonic() > until:
            out.unmerged += len(single)
            return
        await asyncio.sleep(0.2)


def zarr_frames(store: Store, data_id: str) -> Frames:
    """The frames of a stream as zarr-python reads them from the bucket."""
    import zarr
    from zarr.storage import ObjectStore

    bucket = ObjectStore(store._open_bucket)  # type: ignore[attr-defined]
    group: Any = zarr.open_group(bucket, path=f"streams/{data_id}/frames.zarr", mode="r")
    return np.asarray(group["frames"][:])


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def owns(analyst: AnalystNode, data_id: str) -> bool:
    """Whether an analysis process has a stream, by its log since its last start."""
    log = (analyst.folder / "log.txt").read_text("utf-8").rpartition("atomstream analyses")[2]
    begins = f"partition {partition_of(data_id)}: its streams are analysed "
    return re.findall(f"{begins}(here|elsewhere)", log)[-1:] == ["here"]


async def entries(log: StreamLog, data_id: str) -> list[SharedEntry]:
    """All entries of a stream."""
    found: list[SharedEntry] = []
    after = 0
    while read := await log.read(data_id, after):
        found += [decoded(entry.payload) for entry in read]
        after = read[-1].number
    return found


def batches(found: list[SharedEntry]) -> dict[tuple[int, int, bool], Any]:
    """The results after each batch, by its frames."""
    results, made = CurrentResults(), {}
    for entry in found:
        if isinstance(entry.record, StoredBatch):
            results = applied(results, entry.record)
            key = (entry.record.start, entry.record.count, entry.record.final)
            made[key] = (
                entry.record.frames_received,
                results,
                entry.columns,
                entry.profile,
                entry.record.events,
            )
    return made
