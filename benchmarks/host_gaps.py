"""Delays caused by the host of a virtual machine: gaps in a busy thread, and the first access to memory.

Short gaps may be interrupts. No program can avoid the long ones, and the maximum times of the other benchmarks
include them.
"""

from __future__ import annotations

import os
import sys

from benchmarks.processes import work
from benchmarks.report import Row
from benchmarks.runner import Plan, main

SECONDS = 10.0
TOUCHED_BYTES = 1 << 30


def measure(plan: Plan) -> list[Row]:
    """Measure each core in turn, as long as a streaming loop works in some minutes; then memory."""
    return [*_gaps(plan), *_touches(plan)]


def _gaps(plan: Plan) -> list[Row]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    job = {"seconds": min(plan.seconds, SECONDS)}
    answers = [
        work(sys.executable, "busy_loop", {**job, "core": core})
        for _ in range(plan.repeats)
        for core in cores
    ]
    name = "a core taken from a thread that never sleeps"
    return [
        Row(
            f"{name}: longest in {job['seconds']:.0f} s", "ms",
            {"bare": [1e3 * answer["longest_s"] for answer in answers]}, (),
            "nothing else runs, and switches to another thread are not counted: the host's doing, and interrupts",
        ),
        Row(
            f"{name}: gaps over 50 us, share of its time", "%",
            {"bare": [100 * answer["share"] for answer in answers]},
        ),
    ]  # fmt: skip


def _touches(plan: Plan) -> list[Row]:
    nbytes = TOUCHED_BYTES >> 5 if plan.quick else TOUCHED_BYTES
    answers = [work(sys.executable, "page_touch", {"nbytes": nbytes}) for _ in range(plan.repeats)]
    name = "2 MiB of fresh memory touched"
    return [
        Row(
            f"{name}, median", "ms", {"bare": [1e3 * answer["median_s"] for answer in answers]}, (),
            "what the system itself clears takes 0.1 ms; where the host must find the memory first, 4 ms and more, and "
            "so does a socket's copy into it",
        ),
        Row(f"{name}, longest of {nbytes >> 21}", "ms", {"bare": [1e3 * answer["longest_s"] for answer in answers]}),
    ]  # fmt: skip


if __name__ == "__main__":
    main(measure)
