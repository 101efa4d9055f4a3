"""A month of use, shortened: ``python -m benchmarks.month [--streams N] [--abandoned N] [--watchers N] [--kills N]``.

Streams are created, streamed, ended, listed, searched and deleted, others are never ended, pages and feeds are open,
and the server is killed at random moments and started again. Printed are handles, threads and memory of the server
from start to start, the times of a list and a search, the time of a start, and what was lost: each chunk that was
answered with 200 is compared with the archive at the end. The exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import numpy as np

from atomstream.records import Frames
from atomstream.server.archive.stream_archive import StreamArchive
from benchmarks.lab_server import LabServer
from tests.wire_client import START_MS, Address, WireClient, make_frames, shard_bytes

T = TypeVar("T")

CHUNK: Final = 4
SHAPE: Final = (16, 24)
FPS: Final = 4.0
AT_ONCE: Final = 8
KINDS: Final = 16
"""Different chunks of frames; each stream begins at another one."""
AWAY: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.TimeoutError)
ENDED: Final = 1000
"""Code with which the server closes the feed of a stream that has ended."""
SEED: Final = 20261130


@dataclass
class Month:
    """What happened; ``stored`` are the answered chunks of each stream, ``lives`` a sample at the end of each run of
    the server.
    """

    stored: dict[str, dict[int, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    created: int = 0
    answered: int = 0
    lists_ms: list[float] = field(default_factory=list)
    searches_ms: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    lives: list[tuple[int, int, float]] = field(default_factory=list)
    pages: int = 0
    messages: int = 0
    repeats: int = 0
    """Requests that were sent again, because the server was killed or had no room."""


class Run:
    """One run on one server."""

    def __init__(self, server: LabServer, asked: argparse.Namespace) -> None:
        self.server = server
        self.asked = asked
        self.month = Month()
        self._draw = random.Random(SEED)
        self._frames = [make_frames(CHUNK, *SHAPE, seed=kind) for kind in range(KINDS)]
        self._bodies = [shard_bytes(frames) for frames in self._frames]
        self._up = asyncio.Event()
        self._next = 0

    def frames(self, kind: int) -> Frames:
        """The frames of a kind of chunk."""
        return self._frames[kind]

    async def all(self) -> None:
        """The whole month."""
        self.month.starts_s.append(await asyncio.to_thread(self.server.start))
        self._up.set()
        watchers = [asyncio.create_task(self._watch(number)) for number in range(self.asked.watchers)]
        killer = asyncio.create_task(self._kill_now_and_then())
        workers = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]
        await asyncio.gather(*workers)
        await killer  # never cancelled: the server might stay down
        await _cancel(*watchers)
        await self._up.wait()
        await asyncio.sleep(2.0)  # the analyses of the last streams
        self._sample()
        for _ in range(30):
            await self._look(quiet=True)
        await asyncio.to_thread(self.server.stop)

    # -- streams -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        total = self.asked.streams + self.asked.abandoned
        address = Address(self.server.url, self.server.api_key)
        async with WireClient(address, timeout=aiohttp.ClientTimeout(total=30)) as client:
            while self._next < total:
                number, self._next = self._next, self._next + 1
                share = self.asked.abandoned
                abandoned = number * share // total != (number + 1) * share // total
                await self._one_stream(client, number, abandoned=abandoned)
                if number % 7 == 0:
                    await self._look()

    async def _one_stream(self, client: WireClient, number: int, *, abandoned: bool) -> None:
        data_id = await self._try(partial(client.create, f"month {number:06}", fps_capture_rate=FPS))
        stored = self.month.stored.setdefault(data_id, {})
        self.month.created += 1
        for index in range(1 if abandoned else 2):
            kind = (number + index) % KINDS
            await self._try(partial(self._upload, client, data_id, index, kind))
            stored[index] = kind
            self.month.answered += 1
        if abandoned:
            return
        await self._try(partial(client.end, data_id))
        self.month.ended.add(data_id)
        if number % 3 == 0:
            await self._try(partial(_delete, client, data_id))
            self.month.deleted.add(data_id)

    async def _upload(self, client: WireClient, data_id: str, index: int, kind: int) -> None:
        begin = START_MS + 1000.0 * index * CHUNK / FPS
        times = {
            "start_unix_ms_utc": f"{begin:.0f}",
            "end_unix_ms_utc": f"{begin + 1000.0 * CHUNK / FPS:.0f}",
        }
        url = await client.url(data_id, index, (CHUNK, *SHAPE), CHUNK, **times)
        body = self._bodies[kind]
        async with client.session.put(url, data=body, headers={"Content-Length": str(len(body))}) as reply:
            if reply.status != 200:
                raise aiohttp.ClientError(f"{reply.status} {await reply.text()}")

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The result of a request, repeated while the server is unreachable."""
        while True:
            await self._up.wait()
            try:
                return await ask()
            except (*AWAY, AssertionError):  # the wire client asserts the status
                self.month.repeats += 1
                await asyncio.sleep(0.05)

    async def _look(self, *, quiet: bool = False) -> None:
        """Measure a list and a search; ``quiet``: without other work."""
        for path, times in (
            ("/data_entries/?limit=100", self.month.lists_ms),
            (f"/data_entries/?limit=100&keywords={self._draw.randrange(1000):03}", self.month.searches_ms),
        ):
            began = time.monotonic()
            with contextlib.suppress(*AWAY):
                async with (
                    aiohttp.ClientSession(headers=self.server.headers) as session,
                    session.get(self.server.url + path) as reply,
                ):
                    await reply.read()
                    if quiet and reply.status == 200:
                        times.append(1000.0 * (time.monotonic() - began))

    # -- pages and feeds ---------------------------------------------------------------------------------

    async def _watch(self, number: int) -> None:
        """A page of a random stream: its file, its data, a picture and its feed; then of another one.

        The more pages there are, the longer each stays open: about two are opened each second.
        """
        draw = random.Random(SEED + number)
        async with aiohttp.ClientSession(headers=self.server.headers) as session:
            while True:
                await self._up.wait()
                known = [data_id for data_id in self.month.stored if data_id not in self.month.deleted]
                if not known:
                    await asyncio.sleep(0.1)
                    continue
                seconds = draw.uniform(0.2, 0.8) * self.asked.watchers
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._page(session, draw.choice(known))

    async def _page(self, session: aiohttp.ClientSession, data_id: str) -> None:
        """Open a page, and its feed again each time that it ends; until the time is over, or the stream deleted."""
        with contextlib.suppress(*AWAY):
            for path in (
                f"/streams/{data_id}",
                f"/dashboard/streams/{data_id}",
                f"/dashboard/streams/{data_id}/picture",
            ):
                async with session.get(self.server.url + path) as reply:
                    await reply.read()
            self.month.pages += 1
        while data_id not in self.month.deleted:
            await self._up.wait()
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                async with session.ws_connect(f"{self.server.url}/rheed/stream/{data_id}/feed") as feed:
                    async for _ in feed:
                        self.month.messages += 1
                if feed.close_code == ENDED:
                    break
            await asyncio.sleep(1.0)
        await asyncio.Event().wait()  # nothing more is sent; the page stays open

    # -- kills -------------------------------------------------------------------------------------------

    async def _kill_now_and_then(self) -> None:
        """``kills`` kills, spread over the streams at random moments."""
        total = self.asked.streams + self.asked.abandoned
        moments = sorted(self._draw.uniform(0.02, 0.98) * total for _ in range(self.asked.kills))
        for moment in moments:
            while self._next < moment:  # noqa: ASYNC110  (a benchmark: the moment need not be exact)
                await asyncio.sleep(0.01)
            await asyncio.sleep(self._draw.uniform(0.0, 0.3))
            self._sample()
            self._up.clear()
            await asyncio.to_thread(self.server.kill)
            self.month.starts_s.append(await asyncio.to_thread(self.server.start))
            self._up.set()

    def _sample(self) -> None:
        self.month.lives.append((self.server.handles(), self.server.threads(), self.server.own_memory_mb()))

    # -- the end -----------------------------------------------------------------------------------------

    def lost(self) -> list[str]:
        """A sentence for each answered chunk that the archive does not have as it was sent."""
        found = []
        streams = self.server.data / "streams"
        for data_id, chunks in self.month.stored.items():
            folder = streams / data_id
            if data_id in self.month.deleted:
                if folder.exists():
                    found.append(f"{data_id} was deleted and is there")
                continue
            try:
                archive = StreamArchive.open(folder)
                for index, kind in chunks.items():
                    seen = archive.frames(index * CHUNK, (index + 1) * CHUNK)
                    if not np.array_equal(seen, self.frames(kind)):
                        found.append(f"chunk {index} of {data_id} is missing or differs")
            except Exception as error:
                found.append(f"{data_id} can't be read: {error}")
        return found


async def _delete(client: WireClient, data_id: str) -> None:
    status, reply = await client.ask("DELETE", f"/rheed/stream/{data_id}")
    if status not in (200, 404, 410):  # gone already: by a try whose answer was lost
        raise aiohttp.ClientError(f"{status} {reply}")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def report(month: Month, lost: Sequence[str], seconds: float) -> str:
    """The table of a benchmark: the first quarter of the server's runs (start to kill) beside the last."""
    quarter = max(1, len(month.lives) // 4)
    first, last = month.lives[:quarter], month.lives[-quarter:]

    def row(name: str, column: int, unit: str = "") -> str:
        before, after = (statistics.median(one[column] for one in part) for part in (first, last))
        most = max(one[column] for one in month.lives)
        return f"| {name} | {before:.0f}{unit} | {after:.0f}{unit} | {most:.0f}{unit} |"

    lines = [
        f"{month.created} streams created, {len(month.ended)} ended, {len(month.deleted)} deleted, "
        f"{month.answered} answered chunks, {month.repeats} repeated requests, {month.pages} pages, "
        f"{month.messages} messages of feeds, "
        f"{len(month.starts_s) - 1} kills, in {seconds:.0f} s.",
        "",
        "| the server | first quarter of its runs | last quarter | most |",
        "|---|---|---|---|",
        row("handles", 0),
        row("threads", 1),
        row("memory", 2, " MiB"),
        f"| start | {statistics.median(month.starts_s[:quarter]):.1f} s | "
        f"{statistics.median(month.starts_s[-quarter:]):.1f} s | {max(month.starts_s):.1f} s |",
        "",
        "| at the end | median | slowest |",
        "|---|---|---|",
        *(
            f"| {name} | {statistics.median(times):.0f} ms | {max(times):.0f} ms |"
            for name, times in (("list of 100", month.lists_ms), ("search", month.searches_ms))
        ),
        "",
        f"Lost: {len(lost)}",
        *lost[:20],
    ]
    return "\n".join(lines)


def run(asked: argparse.Namespace, folder: Path) -> tuple[Month, list[str], float]:
    """A whole run in ``folder``: what happened, what was lost, and its seconds."""
    began = time.monotonic()
    server = LabServer(folder, sampled=False)
    made = Run(server, asked)
    try:
        asyncio.run(made.all())
    finally:
        server.kill()
    return made.month, made.lost(), time.monotonic() - began


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The sizes of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=10_000, help="streams that are ended")
    parser.add_argument("--abandoned", type=int, default=5_000, help="streams that nobody ends")
    parser.add_argument("--watchers", type=int, default=500, help="pages with feeds that are open at once")
    parser.add_argument("--kills", type=int, default=200, help="kills of the server")
    return parser.parse_args(given)


def main() -> int:
    """Run it, and print the table."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="atomstream-month-") as name:
        month, lost, seconds = run(asked, Path(name))
    print(report(month, lost, seconds))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
