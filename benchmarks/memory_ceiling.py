"""Memory above the baseline while the server does not answer; the limit is buffer_bytes + one chunk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.frames import frames_file
from benchmarks.processes import MODULES, work
from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.runs import pythons
from benchmarks.sink import running_sink

MIB = 1 << 20
BUFFER = 256 * MIB
UPLOADS, UPLOAD_BYTES, CONTEXTS = 4, 2 * MIB, 16 * MIB
"""Other terms of the limit: windows of the running uploads, and the contexts of two encoders."""


def measure(plan: Plan) -> list[Row]:
    """Measure on Linux, which has a high-water mark of memory; elsewhere there is no row."""
    if not Path("/proc/self/clear_refs").exists():
        print("memory_ceiling is left out: this system keeps no resettable high-water mark", file=sys.stderr)
        return []
    return [_row(plan, size, spool) for size in plan.sizes() for spool in ("disk", "none")]


def _row(plan: Plan, size: tuple[int, int], spool: str) -> Row:
    figures: dict[Who, list[float]] = {}
    with running_sink(hold=True) as sink:
        for k in range(plan.repeats):
            for who in ("ours", "peer"):
                python = pythons()[who]
                if python is None or (who == "peer" and spool == "none"):
                    continue
                job = _job(plan, size, spool, who, k, sink.url)
                answer = work(python, "memory", job)
                figures.setdefault(who, []).append(answer["grown"] / 1e6)
    ceiling = BUFFER + plan.chunk * size[0] * size[1] + UPLOADS * UPLOAD_BYTES + CONTEXTS
    figures["bare"] = [ceiling / 1e6] * plan.repeats
    what = "spool on" if spool == "disk" else "no spool"
    return Row(
        f"memory above the baseline, {size[0]}x{size[1]}, {what}", "MB", figures, (Goal(1.0, "bare"),),
        "bare: the promise, 256 MiB of buffer_bytes + one chunk + 4 upload windows + encoder contexts",
    )  # fmt: skip


def _job(plan: Plan, size: tuple[int, int], spool: str, who: Who, k: int, url: str) -> dict[str, Any]:
    folder = plan.shm / f"memory-{who}-{size[0]}-{k}"
    if spool == "none":
        folder = plan.shm / "not-a-folder"  # a file instead of a folder, so frames stay in memory only
        folder.touch()
    return {
        "frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": url, "spool": str(folder),
        "fps": plan.fps, "chunks": 3 if plan.quick else 20, "seconds": 0.5 if plan.quick else 12.0,
        "module": MODULES[who], "settings": {"buffer_bytes": BUFFER} if who == "ours" else {},
    }  # fmt: skip


if __name__ == "__main__":
    main(measure)
