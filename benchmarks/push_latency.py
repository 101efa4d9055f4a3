"""Duration of ``push`` of 240 frames in real time; bare is the same copy alone."""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.runs import Size, paced


def measure(plan: Plan) -> list[Row]:
    """Measure median and 99th percentile of each run, relative to the plain copy of that run."""
    return [row for size in plan.sizes() for row in _rows(plan, size)]


def _rows(plan: Plan, size: Size) -> list[Row]:
    answers = paced(plan, size)
    name = f"push of {plan.chunk} x {size[0]}x{size[1]}"
    copies = [1e3 * statistics.median(answer["copy_s"]) for answer in answers["ours"]]
    rows = []
    for what, percent, limit in (("median", 50.0, 1.5), ("p99", 99.0, 3.0)):
        figures: dict[Who, list[float]] = {
            who: [1e3 * float(np.percentile(answer["push_s"], percent)) for answer in runs]
            for who, runs in answers.items()
        }
        figures["bare"] = copies
        rows.append(Row(f"{name}, {what}", "ms", figures, (Goal(limit, "bare"),)))
    return rows


if __name__ == "__main__":
    main(measure)
