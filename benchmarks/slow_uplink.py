"""480x640 at 120 fps over 50 Mbit/s, a third of what is needed: when the client warns, and its backlog."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Row
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink
from benchmarks.throttle import throttled

LINE_BITS_S = 50e6


def measure(plan: Plan) -> list[Row]:
    """Measure the time from the first frame to the first warning, whose text is the note of the row."""
    size = (48, 64) if plan.quick else (480, 640)
    rate = 2e5 if plan.quick else LINE_BITS_S
    with running_sink() as sink, throttled(sink.url, rate) as url:
        answers = [_run(plan, size, url, k) for k in range(plan.repeats)]
    warnings = [_forecasts(answer) for answer in answers]
    lines = [texts[0] for texts in warnings if texts]
    name = f"{size[0]}x{size[1]} at {plan.fps:g} fps over {rate / 1e6:g} Mbit/s"
    note = f"after {lines[0][0]:.0f} s: {lines[0][1]}" if lines else "no warning"
    return [
        Row(f"{name}: warning after", "s", {"ours": [moment for moment, _ in lines]}, (), note),
        Row(
            f"{name}: slowest push_frame", "ms", {"ours": [1e3 * max(answer["call_s"]) for answer in answers]}
        ),
        Row(f"{name}: chunks that wait", "", {"ours": [answer["backlog"] for answer in answers]}),
    ]


def _run(plan: Plan, size: tuple[int, int], url: str, k: int) -> dict[str, Any]:
    return work(sys.executable, "camera", {
        "url": url, "frames": str(frames_file(plan.shm, *size, plan.chunk)),
        "fps": plan.fps, "chunk": plan.chunk, "spool": str(plan.disk / f"uplink-{k}"),
        "seconds": 1.5 if plan.quick else min(plan.seconds, 60.0), "finalize": False,
    })  # fmt: skip


def _forecasts(answer: dict[str, Any]) -> list[tuple[float, str]]:
    return [(moment, text) for moment, text in answer["messages"] if "uplink" in text]


if __name__ == "__main__":
    main(measure)
