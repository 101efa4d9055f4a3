"""What the analysis of a stream costs: processor time for each second of film, decoding included.

Run: ``python -m benchmarks.analysis_cpu [--seconds 40] [--rpm 15] [--height 480 --width 640]``. Frames of the
simulator at 120 fps, encoded as the client does, decoded and analysed in one thread as a worker does it, in chunks of
2 s. "Share of a core" is processor time over the film's own time; the goal is a third. Decoding is told apart: the
server shares the frames that its ingest has decoded, so a worker usually has none of it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # as in a worker; before numpy is loaded

import numpy as np  # noqa: E402

from atomstream.records import Chunk, Stamp  # noqa: E402
from atomstream.server.live.session import Session  # noqa: E402
from atomstream.shard import ShardEncoder, decode_shard  # noqa: E402
from atomstream.sources import GrowthSpec, Simulator  # noqa: E402

FPS = 120.0
CHUNK = 240
LOOPED = 5
"""Chunks drawn and encoded beforehand (10 s: four periods of the growth), then repeated."""


@contextmanager
def timed(spent: list[float]) -> Iterator[None]:
    """Add the block's processor time, in s, to ``spent``."""
    before = time.process_time()
    yield
    spent.append(time.process_time() - before)


def encoded(options: argparse.Namespace) -> list[tuple[bytes, tuple[int, int, int]]]:
    """The chunks as shards."""
    spec = GrowthSpec(options.height, options.width, FPS, rpm=options.rpm, tau_ml=1e6)
    shards = []
    for frames in Simulator(spec).chunks(CHUNK, LOOPED * CHUNK):
        shard = ShardEncoder(1).encode(Chunk("", 0, frames, Stamp(0.0)))
        shards.append((b"".join(shard.pieces), shard.dims))
    return shards


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--rpm", type=float, default=0.0)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    options = parser.parse_args()
    shards = encoded(options)
    session = Session({"fps": FPS, "rpm": options.rpm, "chunk_size": CHUNK})
    decoding: list[float] = []
    analysing: list[float] = []
    for index in range(round(options.seconds * FPS / CHUNK)):
        body, dims = shards[index % LOOPED]
        with timed(decoding):
            frames = decode_shard(body, dims)
        times = (index * CHUNK + np.arange(CHUNK)) / FPS
        with timed(analysing):
            list(session.feed(index * CHUNK, frames, times))
    film_s = len(decoding) * CHUNK / FPS
    print(f"{options.height}x{options.width} at {FPS:g} fps, {options.rpm:g} rpm, {film_s:g} s of film")
    for what, parts in (("decoding", decoding), ("analysis", analysing)):
        share = sum(parts) / film_s
        print(f"{what:<10} {1000 * sum(parts) / len(parts) / CHUNK:6.2f} ms a frame   {share:6.1%} of a core")
    print(
        f"{'together':<10} {'':18} {(sum(decoding) + sum(analysing)) / film_s:6.1%} of a core (goal: 33.3%)"
    )


if __name__ == "__main__":
    main()
