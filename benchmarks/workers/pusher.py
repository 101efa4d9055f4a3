"""Pushes chunks through a streamer, paced or not; one program for both clients, whose verbs are the same.

Runs under either client's own Python and imports neither directly: the job names the module. Writes one JSON line.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    job = json.loads(sys.argv[1])
    frames = np.load(job["frames"], mmap_mode="r")
    source = np.ascontiguousarray(frames)
    streamer = importlib.import_module(job["module"]).RHEEDStreamer(
        "key", job["url"], None, job["spool"], spool_min_free_bytes=0, **job.get("settings", {})
    )
    warm_up = warm_up_chunks(source.nbytes)
    _stream(streamer, job, source, warm_up)  # creates sessions, threads and buffers
    result = {"paced": paced, "unpaced": unpaced, "spread": spread}[job["mode"]](streamer, job, source)
    if hasattr(streamer, "close"):
        streamer.close()
    print(json.dumps({**result, "warm_up": warm_up}))


def warm_up_chunks(nbytes: int) -> int:
    """Return the number of chunks that fills all buffers of a client: 640 MB of frames, at least two chunks."""
    return max(2, round(640e6 / nbytes)) if nbytes > 1e7 else 2


def paced(streamer: Any, job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """Push one chunk per period; half a period later do the same copy alone, between two arrays in memory."""
    data_id, target = _open(streamer, job, source), np.empty_like(source)
    np.copyto(target, source)
    period = job["period_s"]
    pushes, copies, begun = [], [], time.perf_counter()
    for k in range(job["chunks"]):
        _sleep_until(begun + k * period)
        pushes.append(_timed(lambda k=k: streamer.push(data_id, k, source)))
        _sleep_until(begun + (k + 0.6) * period)
        copies.append(_timed(lambda: np.copyto(target, source)))
    report = streamer.finalize(data_id)
    return {"push_s": pushes, "copy_s": copies, "uploaded": report["chunks_uploaded"]}


def unpaced(streamer: Any, job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """Push as fast as possible, until the last chunk is acknowledged."""
    return spread(streamer, {**job, "streams": 1}, source)


def spread(streamer: Any, job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """Push to ``streams`` streams of one streamer in turn, ``chunks`` to each."""
    data_ids = [_open(streamer, job, source) for _ in range(job["streams"])]
    cpu, begun = time.process_time(), time.perf_counter()
    for k in range(job["chunks"]):
        for data_id in data_ids:
            streamer.push(data_id, k, source)
    reports = [streamer.finalize(data_id) for data_id in data_ids]
    chunks = job["chunks"] * job["streams"]
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
        "gb": chunks * source.nbytes / 1e9,
        "frames": chunks * len(source),
        "uploaded": sum(report["chunks_uploaded"] for report in reports),
    }


def _stream(streamer: Any, job: dict[str, Any], source: np.ndarray, chunks: int) -> None:
    data_id = _open(streamer, job, source)
    for k in range(chunks):
        streamer.push(data_id, k, source)
    streamer.finalize(data_id)


def _open(streamer: Any, job: dict[str, Any], source: np.ndarray) -> str:
    return str(streamer.initialize(fps=job["fps"], rotations_per_min=0.0, chunk_size=len(source)))


def _timed(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


if __name__ == "__main__":
    main()
