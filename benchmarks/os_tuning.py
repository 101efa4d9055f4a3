"""Paired A/B runs of each operating-system optimisation: what turning it off changes.

Each round measures the client with all optimisations, then once without each one, in the runs that it can change.
A slow minute of the machine so affects all variants. A figure is the median over the rounds of (without / with),
and its range. For every figure a smaller value is better: a ratio above 1 is what the optimisation gains.

The runs: ``memory`` and ``disk`` push as fast as possible, with the spool there; ``paced`` pushes chunks of 240
frames at 120 fps; ``loop`` does so in an asyncio application; ``frames`` pushes single frames.

    python -m benchmarks.os_tuning --repeats 5 --seconds 10
"""

from __future__ import annotations

import statistics
import sys
from typing import Any, Final

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.runner import Plan, planned
from benchmarks.sink import Sink, running_sink

RUNS: Final = {
    "yield": ("memory", "loop", "frames"),
    "prefault": ("memory", "paced", "loop", "frames"),
    "mmap": ("memory", "paced", "loop"),
    "recycle": ("memory", "disk"),
    "gc": ("frames", "loop"),
    "1": ("memory", "disk", "paced", "loop", "frames"),
}
"""The runs that each optimisation can change; "1" turns all of them off."""
Figures = dict[str, float]


def main() -> None:
    """Print one row per optimisation and figure."""
    with planned() as plan, running_sink() as sink:
        rounds = [_round(plan, sink, k) for k in range(plan.repeats)]
    print(
        "| turned off | figure | without / with, median (range) | with all |", "|---|---|---|---|", sep="\n"
    )
    for name, runs in RUNS.items():
        for figure in (figure for figure in rounds[0][name] if figure.split(":")[0] in runs):
            ratios = [one[name][figure] / one[""][figure] for one in rounds]
            usual = statistics.median(one[""][figure] for one in rounds)
            print(f"| {'all' if name == '1' else name} | {figure} | {_cell(ratios)} | {usual:.4g} |")


def _round(plan: Plan, sink: Sink, number: int) -> dict[str, Figures]:
    names = ["", *RUNS]
    turn = (
        number * 3 % len(names)
    )  # another order in each round, so that no variant always follows the same one
    return {name: _measure(plan, sink, name) for name in names[turn:] + names[:turn]}


def _measure(plan: Plan, sink: Sink, off: str) -> Figures:
    size = plan.sizes()[0]
    period = 0.05 if plan.quick else plan.chunk / plan.fps
    paced_chunks = 3 if plan.quick else max(4, round(plan.seconds / period))
    job = {
        "frames": str(frames_file(plan.shm, *size, plan.chunk)),
        "url": sink.url,
        "fps": plan.fps,
        "period_s": period,
        "module": "atomstream.streaming",
        "chunk": plan.chunk,
        "seconds": plan.seconds,
    }
    figures: Figures = {}
    for kind in RUNS["1"] if not off else RUNS[off]:
        folder = (plan.disk if kind == "disk" else plan.shm) / "tuning"
        if kind in ("memory", "disk"):
            chunks = 3 if plan.quick else round(3e9 / (plan.chunk * size[0] * size[1]))
            run = _run("pusher", off, {**job, "mode": "unpaced", "chunks": chunks, "spool": str(folder)})
            figures[f"{kind}: s per 1000 frames"] = 1000 * run["wall_s"] / run["frames"]
            figures[f"{kind}: CPU s/GB"] = run["cpu_s"] / run["gb"]
        elif kind == "paced":
            run = _run("pusher", off, {**job, "mode": "paced", "chunks": paced_chunks, "spool": str(folder)})
            figures["paced: push, median ms"] = 1000 * statistics.median(run["push_s"])
            figures["paced: push, slowest ms"] = 1000 * max(run["push_s"])
        elif kind == "loop":
            run = _run("stall", off, {**job, "chunks": paced_chunks, "spool": str(folder)})
            figures["loop: held longest, ms"] = run["ours"]["wall"]
        else:
            calls = sorted(_run("camera", off, {**job, "spool": str(folder)})["call_s"])
            figures["frames: push_frame p99.9, ms"] = 1000 * calls[int(0.999 * (len(calls) - 1))]
            figures["frames: push_frame slowest, ms"] = 1000 * calls[-1]
    return figures


def _run(worker: str, off: str, job: dict[str, Any]) -> dict[str, Any]:
    return work(sys.executable, worker, job, ATOMSTREAM_PLAIN_OS=off)


def _cell(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
