"""Decodes and analyses repeated frames in one thread, as a worker of the server does. Prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from atomstream.records import Chunk, Timestamp
from atomstream.server.live.annotation_records import CalibrationRecord
from atomstream.server.live.worker import AnalyzerSession
from atomstream.server.live.worker_messages import StreamSettings
from atomstream.shard import ShardEncoder, decode_shard
from atomstream.sources import GrowthSpec, Simulator


def main() -> None:
    job = json.loads(sys.argv[1])
    shards, fps, chunk = encoded(job), job["fps"], job["chunk"]
    session = AnalyzerSession(
        StreamSettings(fps=fps, rpm=job["rpm"], chunk_size=chunk, calibration=CalibrationRecord())
    )
    spent = {"decode_s": 0.0, "analyse_s": 0.0}
    chunks = max(1, round(job["seconds"] * fps / chunk))
    for index in range(chunks):
        body, dims = shards[index % len(shards)]
        begun = time.process_time()
        frames = decode_shard(body, dims)
        decoded = time.process_time()
        for _ in session.feed(index * chunk, frames, (index * chunk + np.arange(chunk)) / fps):
            pass
        spent["analyse_s"] += time.process_time() - decoded
        spent["decode_s"] += decoded - begun
    print(json.dumps({**spent, "film_s": chunks * chunk / fps}))


def encoded(job: dict[str, float]) -> list[tuple[bytes, tuple[int, int, int]]]:
    """Return the chunks of ``looped_s`` seconds of frames as shards; they are analysed again and again."""
    chunk, count = int(job["chunk"]), max(1, round(job["looped_s"] * job["fps"] / job["chunk"]))
    spec = GrowthSpec(int(job["height"]), int(job["width"]), job["fps"], rpm=job["rpm"], tau_ml=1e6)
    made = (
        ShardEncoder().encode(Chunk("", 0, frames, Timestamp(0.0)))
        for frames in Simulator(spec).chunks(chunk, chunk * count)
    )
    return [(b"".join(shard.pieces), shard.info.dims) for shard in made]


if __name__ == "__main__":
    main()
