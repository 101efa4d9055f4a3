"""Linearity: CPU time with many streams and with many chunks, compared with few."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import archive_hours, catalogue_length
from benchmarks.frames import frames_file
from benchmarks.processes import MODULES, work
from benchmarks.report import Row, Who
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink


def measure(plan: Plan) -> list[Row]:
    """Measure the cost per unit of work; ``bare`` is the same at the smallest size."""
    return [*_streams(plan), *_chunks(plan), *catalogue_length.measure(plan), *archive_hours.measure(plan)]


def _streams(plan: Plan) -> list[Row]:
    size = plan.sizes()[0]
    counts = (1, 2) if plan.quick else (1, 2, 4, 8)
    chunks = 2 if plan.quick else 4
    found = {
        count: _costs(plan, size, count, max(counts) * chunks // count, "cpu_s", "gb") for count in counts
    }
    note = "the same number of chunks in all; bare: with one stream"
    return [
        Row(f"client CPU, {count} streams", "s/GB", {"ours": found[count], "bare": found[1]}, (), note)
        for count in counts[1:]
    ]


def _chunks(plan: Plan) -> list[Row]:
    few, many = (4, 8) if plan.quick else (100, 1000)
    small = _costs(plan, (48, 64), 1, few, "cpu_s", "chunks")
    large = _costs(plan, (48, 64), 1, many, "cpu_s", "chunks")
    figures: dict[Who, list[float]] = {
        "ours": [1e3 * value for value in large],
        "bare": [1e3 * value for value in small],
    }
    name = f"client CPU for a chunk of 240 x 48x64, {many} chunks"
    return [Row(name, "ms", figures, (), f"bare: of {few} chunks")]


def _costs(plan: Plan, size: tuple[int, int], streams: int, chunks: int, what: str, per: str) -> list[float]:
    with running_sink() as sink:
        answers = [_run(plan, size, streams, chunks, sink.url, k) for k in range(plan.repeats)]
    return [answer[what] / answer[per] for answer in answers]


def _run(plan: Plan, size: tuple[int, int], streams: int, chunks: int, url: str, k: int) -> dict[str, Any]:
    answer = work(sys.executable, "pusher", {
        "frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": url, "fps": plan.fps, "mode": "spread",
        "spool": str(plan.shm / f"many-{size[0]}-{streams}-{chunks}-{k}"), "module": MODULES["ours"],
        "streams": streams, "chunks": chunks,
    })  # fmt: skip
    return {**answer, "chunks": streams * chunks}


if __name__ == "__main__":
    main(measure)
