"""Requests, bytes and memory of a stream in a cluster: ``python -m benchmarks.cluster_traffic``.

A cluster of one server and one analysis process runs on this machine; their connections to S3 and NATS lead through a
program that counts. Requests and bytes are counted from before the first chunk until the last copy after the end, for
each stream and second of streaming: so short streams count more than long ones, because of what is stored at the end.
Memory is the proportional set size (PSS) of each part, before the streams and at their end, and that of all processes
of the part together. All of it is independent of how busy the computer is, but for the number of repeated requests.
"""

from __future__ import annotations

import asyncio
import re
import signal
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from atomstream.cluster.balancer import balancing
from atomstream.cluster.local_cluster import LocalCluster
from atomstream.cluster.nodes import Node
from benchmarks.cluster_streams import (
    Target,
    followed_streams,
    growth_chunk,
    parser_of_cases,
    processes,
    temporary_folder,
)
from tests.cluster.kill_rig import opened_store
from tests.server.store.server_process import passed_on

CASES: Final = ((1, 480, 640, 120.0, 2.0), (4, 120, 160, 30.0, 2.0), (4, 120, 160, 30.0, 0.1))
"""Streams, height, width, frames per second, seconds in a chunk."""
METHOD: Final = re.compile(rb"(GET|PUT|HEAD|DELETE|POST) /([^ ?]*)[^ ]* HTTP/1\.1\r\n")
STREAM: Final = re.compile(r".*/[0-9a-f]{8}-[0-9a-f-]{27}/")
TOP: Final = 25
AFTER_S: Final = 15.0
"""Time after the last result in which copies to the store may follow, in s."""


class Counts:
    """Bytes and requests of the connections to one service."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.objects: Counter[str] = Counter()
        """Requests by method and object, with ``K`` for each number in its name."""

    def heard(self, what: str, data: bytes) -> bool:
        """Note what was sent or received."""
        self.counted[what] += len(data)
        if what == "request" and (found := METHOD.match(data)):
            self.counted[found[1].decode()] += 1
            name = re.sub(r"\d+", "K", STREAM.sub("", found[2].decode()))
            self.objects[f"{found[1].decode()} {name}"] += 1
        return True


@asynccontextmanager
async def counted_cluster(folder: Path, s3: Counts, nats: Counts) -> AsyncIterator[LocalCluster]:
    """A cluster whose server and analysis process reach S3 and NATS through counters."""
    made = LocalCluster(folder, servers=1, analysts=1)
    nodes: list[Node] = [*made.servers, *made.analysts]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(balancing(made.port, [server.port for server in made.servers]))
        for engine, counts in ((made.s3, s3), (made.nats, nats)):
            url = await stack.enter_async_context(passed_on(engine.url, counts.heard))
            before, after = urlsplit(engine.url).netloc, urlsplit(url).netloc
            for node in nodes:
                node._arguments = [word.replace(before, after) for word in node._arguments]
        try:
            await asyncio.to_thread(made.start)
            yield made
        finally:
            for part in made.parts:
                await asyncio.to_thread(part.kill)


def pss_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants in MB."""
    total = 0
    for one in processes(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1000


async def run(
    target: Target, spool: Path, count: int, chunk: npt.NDArray[np.uint8], fps: float, n_chunks: int
) -> int:
    """Stream; returns the bytes of the feeds."""
    chunk_s = len(chunk) / fps
    async with followed_streams(target, spool, count, chunk, fps) as senders:
        begun = asyncio.get_running_loop().time()
        for index in range(n_chunks):
            await asyncio.sleep(max(0.0, begun + index * chunk_s - asyncio.get_running_loop().time()))
            for data_id in senders.data_ids:
                await senders.streamer.push(data_id, index, chunk)
        for data_id in senders.data_ids:
            await senders.streamer.finalize(data_id)
        return sum(await asyncio.gather(*senders.feeds))


async def measure(seconds: float, cases: list[int]) -> None:
    """Run the cases, and print what was counted."""
    with temporary_folder("traffic") as folder:
        for number in cases:
            count, height, width, fps, chunk_s = CASES[number]
            chunk = growth_chunk(height, width, fps, chunk_s)
            s3, nats = Counts(), Counts()
            async with counted_cluster(folder / str(number), s3, nats) as made:
                parts = {"server": made.servers[0], "analysis": made.analysts[0], "S3": made.s3}
                parts |= {"NATS": made.nats, "PostgreSQL": made.postgres}
                target = Target(made.url, made.api_key, parts)
                idle = {part: pss_mb(engine.pid) for part, engine in parts.items()}
                before = s3.counted.copy(), nats.counted.copy()
                feeds = await run(
                    target, folder / f"spool-{number}", count, chunk, fps, round(seconds / chunk_s)
                )
                used = {part: pss_mb(engine.pid) for part, engine in parts.items()}
                await asyncio.sleep(AFTER_S)
                with opened_store(made) as store:
                    sizes = dict(store.sizes("streams"))
            print(f"{count} of {height} x {width} at {fps:g} fps, chunks of {chunk_s:g} s, {seconds:g} s:")
            each = count * seconds
            chunks = sum(size for key, size in sizes.items() if "/frames.zarr/frames/c" in key)
            print(f"  frames {chunks / each / 1e6:.3f} MB/s, feed {feeds / each / 1e6:.4f} MB/s")
            for service, counts, old in (("S3", s3, before[0]), ("NATS", nats, before[1])):
                made_of = counts.counted - old
                text = ", ".join(
                    f"{key} {value / each / 1e6:.3f} MB/s" if key in ("request", "reply") else
                    f"{key} {value / each:.2f}/s"
                    for key, value in sorted(made_of.items())
                )  # fmt: skip
                print(f"  {service}: {text}")
            for name, number_of in s3.objects.most_common(TOP):
                print(f"    {number_of / each:.2f}/s {name}")
            print(f"  objects {len(sizes) / each:.2f} each s, {sum(sizes.values()) / each / 1e6:.3f} MB/s")
            memory = ", ".join(f"{part} {idle[part]:.0f} to {used[part]:.0f} MB" for part in parts)
            print(f"  memory: {memory}", flush=True)


def main() -> int:
    """Measure all cases, or those that the command line names."""
    parser = parser_of_cases(__doc__, len(CASES))
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the streams in s")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is ended in that case too
    warnings.filterwarnings("ignore", "chunk_size=")  # too short for the hosted service
    asyncio.run(measure(asked.seconds, list(asked.cases)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
