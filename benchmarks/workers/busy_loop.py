"""A thread that only reads the clock, and its gaps that no other thread caused. Prints one JSON line."""

from __future__ import annotations

import gc
import json
import os
import sys
import time

from benchmarks.thread_time import ThreadClock

GAP_S = 50e-6
"""Shorter gaps in s are caused by the timer interrupt and the interpreter."""


def spin(seconds: float) -> tuple[float, float]:
    """Return the longest gap and the sum of all gaps."""
    clock, longest, total = ThreadClock(), 0.0, 0.0
    before = clock.now()
    over, last = before.wall_s + seconds, before.wall_s
    while last < over:
        now = time.perf_counter()
        if now - last > GAP_S:  # the queued time is read only here, because that takes a system call
            after = clock.now()
            gap = max(0.0, now - last - (after.queued_s - before.queued_s))
            longest, total, before, now = max(longest, gap), total + gap, after, after.wall_s
        last = now
    clock.close()
    return longest, total


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["core"] is not None:
        os.sched_setaffinity(0, {job["core"]})
    gc.disable()
    longest, total = spin(job["seconds"])
    print(json.dumps({"longest_s": longest, "share": total / job["seconds"]}))


if __name__ == "__main__":
    main()
