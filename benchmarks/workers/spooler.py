"""What the spool costs a client: paced pushes with its CPU, and durable pushes beside the bare steps. One JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.records import Chunk, FrameMeta, Stamp
from atomstream.shard import ShardEncoder

WARM_UP = 2


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    streamer = RHEEDStreamer(
        "key", job["url"], 0, job["spool"], spool_min_free_bytes=0, durability=job["durability"]
    )
    data_id = streamer.initialize(job["fps"], 0.0, len(source))
    for k in range(WARM_UP):
        streamer.push(data_id, k, source)
    streamer.flush(data_id)
    result = {"paced": paced, "durable": durable}[job["mode"]](streamer, data_id, job, source)
    streamer.close()
    print(json.dumps(result))


def paced(streamer: RHEEDStreamer, data_id: str, job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """One chunk each period; the processor time until the last one is acknowledged."""
    cpu, begun, pushes = time.process_time(), time.perf_counter(), []
    for k in range(job["chunks"]):
        time.sleep(max(0.0, begun + k * job["period_s"] - time.perf_counter()))
        pushes.append(timed(lambda k=k: streamer.push(data_id, WARM_UP + k, source)))
    streamer.flush(data_id)
    return {"push_s": pushes, "cpu_s": time.process_time() - cpu}


def durable(streamer: RHEEDStreamer, data_id: str, job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """A push that returns when the chunk is safe, then the same bytes encoded, written and synced bare, in turn."""
    encoder, pushes, bares = ShardEncoder(), [], []
    for k in range(job["chunks"]):
        pushes.append(timed(lambda k=k: streamer.push(data_id, WARM_UP + k, source)))
        streamer.flush(data_id)  # or its upload would run beside the bare steps
        bares.append(timed(lambda k=k: bare(encoder, Path(job["bare"]), k, source)))
    return {"push_s": pushes, "bare_s": bares}


def bare(encoder: ShardEncoder, folder: Path, k: int, source: np.ndarray) -> None:
    """Encode, write, fdatasync; no name, no folder, no checksum of ours."""
    shard = encoder.encode(Chunk("bare", k, source, Stamp(0.0), FrameMeta()))
    path = folder / f"bare-{k}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for piece in shard.pieces:
        os.write(fd, piece)
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)
    os.close(fd)
    path.unlink()


def timed(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
