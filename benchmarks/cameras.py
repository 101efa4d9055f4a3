"""From each camera emulator at its full rate through the grabber and ``push_frame``: frames lost, and the push's time.

The emulators are those of the tests; one whose packages are not installed is left out. The sink runs on the same cores.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np

from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink

FULL: Final[dict[str, dict[str, Any]]] = {
    "simulated": {"fps": 120.0},
    "basler": {"fps": 200.0, "exposure_ms": 1.0, "roi": [0, 0, 640, 480]},
    "genicam": {"fps": 60.0},
    "aravis": {"fps": 200.0, "exposure_ms": 1.0, "roi": [0, 0, 512, 480]},
    "micromanager": {"exposure_ms": 2.0},
    "epics": {"fps": 120.0, "shape": [480, 640]},
    "opencv": {},
    "screen": {"fps": 60.0},
    "folder": {},
}
"""Settings of each emulator for frames of about 640x480 at the highest rate that it has."""


def measure(plan: Plan) -> list[Row]:
    """Stream from each emulator, and return its rate, its lost frames and the time of ``push_frame``."""
    rows: list[Row] = []
    for name in ["simulated"] if plan.quick else FULL:
        with running_sink() as sink:
            answers = [
                work(sys.executable, "grab", {
                    "url": sink.url, "spool": str(plan.shm / f"{name}-{k}"), "emulator": name,
                    "settings": FULL[name], "seconds": plan.seconds,
                })
                for k in range(plan.repeats)
            ]  # fmt: skip
        answers = [answer for answer in answers if "skipped" not in answer]
        if answers:
            rows += _rows(name, answers)
    return rows


def _rows(name: str, answers: list[dict[str, Any]]) -> list[Row]:
    where = f"{name}, {answers[0]['frame']}"
    return [
        Row(f"{where}, frames per second", "1/s", {"ours": [answer["fps"] for answer in answers]}),
        Row(f"{where}, frames lost", "", {"ours": [answer["lost"] for answer in answers]}, (Goal(0.0),)),
        Row(
            f"{where}, push_frame, p99.9",
            "ms",
            {"ours": [1e3 * float(np.percentile(answer["call_s"], 99.9)) for answer in answers]},
            (Goal(2.0),),
        ),
    ]


if __name__ == "__main__":
    main(measure)
