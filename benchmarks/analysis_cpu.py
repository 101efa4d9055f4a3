"""CPU time of the analysis per second of frames, with decoding."""

from __future__ import annotations

import sys

from atomstream.server.live.worker_pool import ONE_THREAD
from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main

RPMS = (0.0, 15.0)
LOOPED_S = 10.0
"""Seconds of frames, simulated and encoded in advance (four periods of the growth), then repeated."""


def measure(plan: Plan) -> list[Row]:
    """Measure one thread, as in a worker of the server, for a stationary and a rotating substrate."""
    size = (48, 64) if plan.quick else (480, 640)
    return [_row(plan, size, rpm) for rpm in RPMS]


def _row(plan: Plan, size: tuple[int, int], rpm: float) -> Row:
    job = {
        "height": size[0], "width": size[1], "fps": plan.fps, "chunk": plan.chunk, "rpm": rpm,
        "seconds": plan.seconds, "looped_s": 2.0 if plan.quick else LOOPED_S,
    }  # fmt: skip
    answers = [work(sys.executable, "analyzer", job, **ONE_THREAD) for _ in range(plan.repeats)]
    shares = [(answer["decode_s"] + answer["analyse_s"]) / answer["film_s"] for answer in answers]
    decoding = sum(answer["decode_s"] for answer in answers) / sum(answer["film_s"] for answer in answers)
    return Row(
        f"analysis of {size[0]}x{size[1]} at {plan.fps:g} fps, {rpm:g} rpm", "cores", {"ours": shares}, (Goal(1 / 3),),
        f"of it decoding {decoding:.3f}, which the server's ingest has usually done already",
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)
