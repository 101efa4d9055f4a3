"""Import time: a new interpreter with the import, minus one without."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import environment
from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.runs import pythons

STATEMENTS: dict[Who, str] = {
    "ours": "from atomstream import RHEEDStreamer",
    "peer": "from atomscale.streaming import RHEEDStreamer",
    "acquire": "import acquire_zarr",
    "bare": "import numpy",
}


def measure(plan: Plan) -> list[Row]:
    """Measure the import of the streamer class; bare is numpy alone. The first import of each is not counted."""
    found: dict[Who, Path | None] = {**pythons(), "bare": Path(sys.executable)}
    figures: dict[Who, list[float]] = {}
    for k in range(2 if plan.quick else 2 * plan.repeats + 1):
        for who, python in found.items():
            if python is not None and (seconds := _extra(python, STATEMENTS[who])) and k:
                figures.setdefault(who, []).append(seconds)
    return [Row("import of the streamer", "s", figures, (Goal(0.4),), "bare: numpy alone")]


def _extra(python: Path, statement: str) -> float:
    return _run(python, statement) - _run(python, "pass")


def _run(python: Path, statement: str) -> float:
    begun = time.perf_counter()
    subprocess.run([python, "-c", statement], check=True, env=environment())
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(measure)
