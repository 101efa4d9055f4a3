"""CPU time of the client per GB of raw frames with the spool, compared with the unavoidable steps."""

from __future__ import annotations

from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.runs import Size, unpaced


def measure(plan: Plan) -> list[Row]:
    """Measure; bare is zstd level 1 + one copy + page-cache write + send, in the same run."""
    return [_row(plan, size) for size in plan.sizes()]


def _row(plan: Plan, size: Size) -> Row:
    answers = unpaced(plan, size)
    figures: dict[Who, list[float]] = {
        who: [answer["cpu_s"] / answer["gb"] for answer in runs]
        for who, runs in answers.items()
        if who != "bare"
    }
    figures["bare"] = [sum(answer["cpu_s_per_gb"].values()) for answer in answers["bare"]]
    steps = ", ".join(f"{name} {value:.2f}" for name, value in answers["bare"][-1]["cpu_s_per_gb"].items())
    note = f"bare: {steps}. acquire-zarr sends nothing"
    return Row(f"client CPU, {size[0]}x{size[1]}, spool on", "s/GB", figures, (Goal(1.3, "bare"),), note)


if __name__ == "__main__":
    main(measure)
