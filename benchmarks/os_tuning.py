"""Paired A/B runs of each operating-system optimisation: what turning it off changes.

Each round measures the client with all optimisations, then once without each one, so that a slow hour of the
machine affects all of them. A figure is the median over the rounds of (without / with), and its range. For every
figure a smaller value is better, so a ratio above 1 is what the optimisation gains.

    python -m benchmarks.os_tuning --repeats 5 --seconds 8
"""

from __future__ import annotations

import statistics
import sys
from typing import Final

from atomstream.system.tuning import ALL
from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.runner import Plan, planned
from benchmarks.sink import Sink, running_sink

FIGURES: Final = {
    "s per 1000 frames": "unpaced, spool in memory: time until all frames are acknowledged",
    "CPU s/GB": "unpaced, spool in memory: processor time of the client",
    "disk s per 1000 frames": "unpaced, spool on disk",
    "disk CPU s/GB": "unpaced, spool on disk",
    "push median": "paced chunks of 240 frames",
    "push slowest": "paced chunks of 240 frames",
    "push_frame p99.9": "single frames at 120 fps",
    "loop held longest": "paced chunks in an asyncio application",
}
Figures = dict[str, float]


def main() -> None:
    """Print one row per optimisation and figure."""
    with planned() as plan, running_sink() as sink:
        rounds = [_round(plan, sink, k) for k in range(plan.repeats)]
    print("| off | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|", sep="\n")
    for name in sorted(ALL | {"1"}):
        cells = [_cell([one[name][figure] / one[""][figure] for one in rounds]) for figure in FIGURES]
        print(f"| {'all' if name == '1' else name} | " + " | ".join(cells) + " |")
    print("\nWith all optimisations, median:")
    for figure, meaning in FIGURES.items():
        print(f"- {figure}: {statistics.median(one[''][figure] for one in rounds):.4g} ({meaning})")


def _round(plan: Plan, sink: Sink, number: int) -> dict[str, Figures]:
    names = ["", *sorted(ALL), "1"]
    turn = number % len(names)  # no variant is always the first after another
    return {name: _measure(plan, sink, name) for name in names[turn:] + names[:turn]}


def _measure(plan: Plan, sink: Sink, off: str) -> Figures:
    env = {"ATOMSTREAM_PLAIN_OS": off}
    size = plan.sizes()[0]
    period = 0.05 if plan.quick else plan.chunk / plan.fps
    paced_chunks = 3 if plan.quick else max(4, round(plan.seconds / period))
    job = {"frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": sink.url, "fps": plan.fps}
    pusher = {**job, "module": "atomstream.streaming", "period_s": period}
    figures: Figures = {}
    for where, folder in (("", plan.shm), ("disk ", plan.disk)):
        chunks = 3 if plan.quick else round(3e9 / (plan.chunk * size[0] * size[1]))
        run = work(
            sys.executable,
            "pusher",
            {**pusher, "mode": "unpaced", "chunks": chunks, "spool": str(folder / "tuning")},
            **env,
        )
        figures[f"{where}s per 1000 frames"] = 1000 * run["wall_s"] / run["frames"]
        figures[f"{where}CPU s/GB"] = run["cpu_s"] / run["gb"]
    spool = {"spool": str(plan.shm / "tuning")}
    run = work(sys.executable, "pusher", {**pusher, **spool, "mode": "paced", "chunks": paced_chunks}, **env)
    figures["push median"] = statistics.median(run["push_s"])
    figures["push slowest"] = max(run["push_s"])
    camera = {**job, **spool, "chunk": plan.chunk, "seconds": plan.seconds}
    calls = sorted(work(sys.executable, "camera", camera, **env)["call_s"])
    figures["push_frame p99.9"] = calls[min(len(calls) - 1, int(0.999 * len(calls)))]
    stall = {**job, **spool, "period_s": period, "chunks": paced_chunks}
    figures["loop held longest"] = work(sys.executable, "stall", stall, **env)["ours"]["wall"]
    return figures


def _cell(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
