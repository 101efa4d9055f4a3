"""Longest callback in the event loop of an asyncio application while it streams."""

from __future__ import annotations

import sys
from typing import Any, Final

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink

PARTS: Final = (
    ("cpu", "processor time"),
    ("queued", "waiting for a core"),
    ("rest", "asleep or stopped by the host"),
)
"""Parts of the duration; all three of one run belong to the same callback."""


def measure(plan: Plan) -> list[Row]:
    """Measure the elapsed time and its parts; only the CPU time is comparable between machines."""
    return [row for size in plan.sizes() for row in _rows(plan, size)]


def _rows(plan: Plan, size: tuple[int, int]) -> list[Row]:
    period = 0.05 if plan.quick else plan.chunk / plan.fps
    with running_sink() as sink:
        answers = [
            work(sys.executable, "stall", {
                "frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": sink.url, "fps": plan.fps,
                "spool": str(plan.shm / f"stall-{size[0]}-{k}"), "period_s": period,
                "chunks": 3 if plan.quick else max(4, round(plan.seconds / period)),
            })
            for k in range(plan.repeats)
        ]  # fmt: skip
    name = f"loop held longest, {size[0]}x{size[1]}"
    return [
        _row(f"{name}, clock", "wall", answers, Goal(5.0)),
        *(_row(f"{name}, of it {what}", key, answers) for key, what in PARTS),
    ]


def _row(name: str, key: str, answers: list[dict[str, Any]], *goals: Goal) -> Row:
    figures: dict[Who, list[float]] = {
        "ours": [answer["ours"][key] for answer in answers],
        "bare": [answer["bare"][key] for answer in answers],
    }
    return Row(
        name, "ms", figures, goals, "bare: an otherwise idle loop during zstd compression" if goals else ""
    )


if __name__ == "__main__":
    main(measure)
