"""A capture loop: one frame at a time in real time through ``push_frame``, and the same loop with a copy only.

Reports the time of each call, the delay of frames, memory, and the state of the chunks. Prints one JSON line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]  # psutil has no type hints

from atomstream.streaming import RHEEDStreamer


def main() -> None:
    job = json.loads(sys.argv[1])
    messages: list[tuple[float, str]] = []
    logging.getLogger("atomstream").addHandler(Listener(messages))
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    bare = copying(source, job["fps"], min(10.0, job["seconds"]))
    settings = {"spool_min_free_bytes": 0, **job.get("settings", {})}
    with RHEEDStreamer(job.get("key", "key"), job["url"], None, job["spool"], **settings) as streamer:
        answer = capture(streamer, job, source, messages)
    print(json.dumps({**answer, "bare_s": bare}))


class Listener(logging.Handler):
    """Records the log messages for the user, and their times."""

    def __init__(self, messages: list[tuple[float, str]]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append((time.perf_counter(), record.getMessage()))


def copying(source: np.ndarray, fps: float, seconds: float) -> list[float]:
    """Measure the bare limit: the same loop, which only copies each frame to a buffer in memory."""
    target = memoryview(np.zeros_like(source).reshape(-1).data)
    size = source[0].nbytes

    def copy(k: int, frame: np.ndarray) -> None:
        start = k % len(source) * size
        target[start : start + size] = memoryview(frame.data).cast("B")

    return paced(source, fps, seconds, copy)[0]


def capture(
    streamer: RHEEDStreamer, job: dict[str, Any], source: np.ndarray, messages: list[Any]
) -> dict[str, Any]:
    """Push ``seconds`` of frames, then drain, with a time limit if the job has one."""
    data_id = streamer.initialize(job["fps"], 0.0, job["chunk"])
    process = psutil.Process()
    before, cpu, begun = process.memory_info().rss, time.process_time(), time.perf_counter()
    calls, late = paced(
        source, job["fps"], job["seconds"], lambda k, frame: streamer.push_frame(data_id, frame, frame_id=k)
    )
    backlog = streamer.stats()["upload_backlog"]
    report = streamer.finalize(data_id) if job.get("finalize", True) else None
    return {
        "data_id": data_id,
        "call_s": calls,
        "late_s": late,
        "backlog": backlog,
        "rss_grown": process.memory_info().rss - before,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - begun,
        "gb": len(calls) * source[0].nbytes / 1e9,
        "not_uploaded": report["chunks_not_uploaded"] if report else None,
        "messages": [(moment - begun, text) for moment, text in messages],
    }


def paced(source: np.ndarray, fps: float, seconds: float, process: Any) -> tuple[list[float], list[float]]:
    """Call ``process(k, frame)`` ``fps`` times per second; return the duration and the delay of each call."""
    calls, late, begun = [], [], time.perf_counter()
    for k in range(max(1, round(seconds * fps))):
        due = begun + k / fps
        time.sleep(max(0.0, due - time.perf_counter()))
        frame = source[k % len(source)]
        start = time.perf_counter()
        process(k, frame)
        calls.append(time.perf_counter() - start)
        late.append(start - due)
    return calls, late


if __name__ == "__main__":
    main()
