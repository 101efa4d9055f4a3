"""Duration of ``push_frame`` at 120 fps while encoder, spool, uploads and, on the same cores, a server run."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import running_server
from benchmarks.sink import running_sink

PERCENTS = (("median", 50.0, ()), ("p99.9", 99.9, (Goal(2.0),)), ("maximum", 100.0, ()))


def measure(plan: Plan) -> list[Row]:
    """Measure with the sink and with a real server; the figures of the bare loop are from the same processes."""
    rows = []
    sizes = [(48, 64)] if plan.quick else [(480, 640), (1080, 1440)]
    for size in sizes:
        with running_sink() as sink:
            rows += rows_of(f"{size[0]}x{size[1]}, to the sink", runs(plan, size, {"url": sink.url}))
    with running_server(plan.disk / "jitter") as server:
        rows += rows_of(f"{sizes[0][0]}x{sizes[0][1]}, with our server", runs(plan, sizes[0], server.login))
    return rows


def runs(plan: Plan, size: tuple[int, int], login: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the camera loop ``plan.repeats`` times."""
    return [
        work(sys.executable, "camera", {
            **login, "frames": str(frames_file(plan.shm, *size, plan.chunk)), "fps": plan.fps,
            "chunk": chunk_of(plan, size),
            "spool": str(plan.shm / f"camera-{size[0]}-{k}-{'key' in login}"), "seconds": plan.seconds,
        })
        for k in range(plan.repeats)
    ]  # fmt: skip


def chunk_of(plan: Plan, size: tuple[int, int]) -> int:
    """Return the frames per chunk, so that several chunks fit into the default ``buffer_bytes``."""
    return max(1, min(plan.chunk, plan.chunk * 480 * 640 // (size[0] * size[1])))


def rows_of(where: str, answers: list[dict[str, Any]]) -> list[Row]:
    """Return rows with median, p99.9 and maximum of each run; bare is a loop that only copies."""
    return [
        Row(
            f"push_frame at 120 fps, {where}, {name}",
            "ms",
            {
                "ours": [1e3 * float(np.percentile(answer["call_s"], percent)) for answer in answers],
                "bare": [1e3 * float(np.percentile(answer["bare_s"], percent)) for answer in answers],
            },
            goals,
        )
        for name, percent, goals in PERCENTS
    ]


if __name__ == "__main__":
    main(measure)
