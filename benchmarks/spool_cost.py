"""Cost of the spool: CPU share, push with and without it, durable pushes, and memory in an outage."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.frames import frames_file
from benchmarks.processes import MODULES, work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink

MIB: Final = 1 << 20
OUTAGE_S: Final = 600.0
OUTAGE_SIZE: Final = (120, 160)
"""Frame size for the outage: ten minutes at 120 fps are 1.4 GB; 480x640 would need 22 GB of disk."""
OUTAGE_BUFFER: Final = 64 * MIB
UPLOADS, UPLOAD_BYTES, CONTEXTS = 4, 2 * MIB, 16 * MIB


CHUNKS: Final = 10
"""Chunks per run. Their cost varies with the load of the machine, which more runs would not average out."""


def measure(plan: Plan) -> list[Row]:
    """Measure at 480x640 with the spool on disk, and the outage at 120x160; about a minute on a quiet machine."""
    size = (48, 64) if plan.quick else (480, 640)
    return [*_paired(plan, size), _durable(plan, size), *_outage(plan)]


def _paired(plan: Plan, size: tuple[int, int]) -> list[Row]:
    runs = [_run(plan, size, k, "paired") for k in range(plan.repeats)]
    shares = [1.0 - _median(run, "cpu_none") / _median(run, "cpu_spool") for run in runs]
    pushes = [[1000 * _median(run, key) for run in runs] for key in ("push_spool", "push_none")]
    name = f"chunks of {plan.chunk} frames of {size[0]}x{size[1]}"
    note = "bare: without a spool, chunk by chunk in turn with the other, in one process"
    return [
        Row(
            f"the spool's share of the client's CPU, {name}", "", {"ours": shares}, (Goal(0.10),),
            "of a chunk's processor time until it is stored and forgotten, at any rate of frames; "
            "against one without a spool, in turn",
        ),
        Row(
            f"push, memory, {name}", "ms", {"ours": pushes[0], "bare": pushes[1]}, (Goal(1.1, "bare"),), note
        ),
    ]  # fmt: skip


def _durable(plan: Plan, size: tuple[int, int]) -> Row:
    runs = [_run(plan, size, k, "durable") for k in range(plan.repeats)]
    figures = [[1000 * _median(run, key) for run in runs] for key in ("push_s", "bare_s")]
    note = "bare: encode + write + fdatasync of the same chunk, in turn with the pushes"
    return Row(
        f'push, durability="disk", {size[0]}x{size[1]}', "ms", {"ours": figures[0], "bare": figures[1]},
        (Goal(1.2, "bare"),), note,
    )  # fmt: skip


def _median(run: dict[str, Any], key: str) -> float:
    return float(statistics.median(run[key]))


def _run(plan: Plan, size: tuple[int, int], k: int, mode: str) -> dict[str, Any]:
    blocked = plan.disk / "not-a-folder"  # a file instead of a folder, so frames stay in memory only
    blocked.touch()
    with running_sink() as sink:
        job = {
            "frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": sink.url, "mode": mode,
            "spool": str(plan.disk / f"spool-{mode}-{k}"), "none": str(blocked / "spool"), "fps": plan.fps,
            "chunks": 3 if plan.quick else CHUNKS, "bare": str(plan.disk),
        }  # fmt: skip
        return work(sys.executable, "spool", job)


def _outage(plan: Plan) -> list[Row]:
    if not Path("/proc/self/clear_refs").exists():
        print("the outage's memory is left out: this system keeps no high-water mark", file=sys.stderr)
        return []
    chunks = 3 if plan.quick else round(OUTAGE_S * plan.fps / plan.chunk)
    grown = [_hoard(plan, chunks)]  # 300 chunks are enough for a high-water mark
    ceiling = OUTAGE_BUFFER + plan.chunk * OUTAGE_SIZE[0] * OUTAGE_SIZE[1] + UPLOADS * UPLOAD_BYTES + CONTEXTS
    return [
        Row(
            f"memory above the baseline, an outage of {chunks * plan.chunk / plan.fps / 60:.2g} min", "MB",
            {"ours": grown, "bare": [ceiling / 1e6]}, (Goal(1.0, "bare"),),
            f"{chunks} chunks of {OUTAGE_SIZE[0]}x{OUTAGE_SIZE[1]} as fast as they go, all of them on disk then; "
            f"bare: the promise with buffer_bytes={OUTAGE_BUFFER // MIB} MiB",
        )
    ]  # fmt: skip


def _hoard(plan: Plan, chunks: int) -> float:
    with running_sink(hold=True) as sink:
        job = {
            "frames": str(frames_file(plan.shm, *OUTAGE_SIZE, plan.chunk)), "url": sink.url,
            "spool": str(plan.disk / "outage"), "fps": plan.fps, "chunks": chunks, "seconds": 300.0,
            "module": MODULES["ours"],
            "settings": {"buffer_bytes": OUTAGE_BUFFER, "spool_max_bytes": 10**11},
        }  # fmt: skip
        return float(work(sys.executable, "memory", job)["grown"] / 1e6)


if __name__ == "__main__":
    main(measure)
