"""Latency of live results at the client: from the storage of a chunk, and from the exposure of its last frame."""

from __future__ import annotations

import sys
from typing import Final

import numpy as np

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import running_server

CASES: Final = ((1, 2.0), (4, 2.0), (1, 0.1), (4, 0.1))
"""(number of streams, length of a chunk in s)"""
QUICK_CASES: Final = ((1, 2.0), (2, 0.1))
"""The same with ``--quick``: both ways to measure, on one chunk and on some."""
SHORT_S: Final = 0.5
"""For shorter chunks the latency is measured from the exposure, for longer ones from storage."""
WARM_UP_S: Final = 6.0
"""Start-up time in s, in which the worker starts and the pattern is found."""


def measure(plan: Plan) -> list[Row]:
    """Measure streams of 480x640 at 120 fps from one client to a server process on the same cores."""
    return [
        row
        for streams, chunk_s in (QUICK_CASES if plan.quick else CASES)
        for row in _rows(plan, streams, chunk_s)
    ]


def _rows(plan: Plan, streams: int, chunk_s: float) -> list[Row]:
    since, limit = ("exposed", 250.0) if chunk_s < SHORT_S else ("stored", 300.0)
    runs = [np.array(_run(plan, streams, chunk_s, k)[f"{since}_ms"]) for k in range(plan.repeats)]
    name = f"results of {streams} stream(s), chunks of {chunk_s:g} s, since {since}"
    return [
        Row(f"{name}, median", "ms", {"ours": [float(np.median(run)) for run in runs]}, (Goal(limit),)),
        Row(f"{name}, p95", "ms", {"ours": [float(np.percentile(run, 95)) for run in runs]}),
    ]


def _run(plan: Plan, streams: int, chunk_s: float, k: int) -> dict[str, list[float]]:
    size = (48, 64) if plan.quick else (480, 640)
    warm_up_s = 0.0 if plan.quick else WARM_UP_S
    name = f"latency-{streams}-{chunk_s:g}-{k}"
    with running_server(plan.disk / name) as server:
        job = {
            **server.login, "frames": str(frames_file(plan.shm, *size, plan.chunk)), "fps": plan.fps,
            "chunk": round(chunk_s * plan.fps), "streams": streams, "warm_up_s": warm_up_s,
            "seconds": max(plan.seconds, warm_up_s + (1 if plan.quick else 3) * chunk_s),
            "spool": str(plan.shm / f"{name}-spool"),
        }  # fmt: skip
        return work(sys.executable, "latency", job)


if __name__ == "__main__":
    main(measure)
