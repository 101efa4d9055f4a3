"""Server with 4 streams of 480x640 at 120 fps on the same machine: frames stored, CPU and memory."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zarr

from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import Served, running_server

STREAMS = 4


def measure(plan: Plan) -> list[Row]:
    """Run each client as a process with a capture loop; the pace is the share stored in time."""
    size = (48, 64) if plan.quick else (480, 640)
    answers = [_run(plan, size, k) for k in range(plan.repeats)]
    name = f"server, {STREAMS} streams of {size[0]}x{size[1]} at {plan.fps:g} fps"
    return [
        Row(f"{name}: pace kept", "", {"ours": [a["pace"] for a in answers]}, (Goal(0.95, at_least=True),)),
        Row(f"{name}: frames readable of those sent", "", {"ours": [a["readable"] for a in answers]},
            (Goal(1.0, at_least=True),)),
        Row(f"{name}: server CPU", "s/GB", {"ours": [a["server_cpu"] for a in answers]}),
        Row(f"{name}: one client's CPU", "s/GB", {"ours": [a["client_cpu"] for a in answers]}),
        Row(f"{name}: server memory, most", "MB", {"ours": [a["rss"] / 1e6 for a in answers]}),
    ]  # fmt: skip


def _run(plan: Plan, size: tuple[int, int], k: int) -> dict[str, float]:
    with running_server(plan.disk / f"server-{k}") as server, _watch(server) as most:
        cpu, begun = server.cpu_s(), time.perf_counter()
        with ThreadPoolExecutor(STREAMS) as pool:
            answers = list(pool.map(lambda n: _client(plan, size, server, f"{k}-{n}"), range(STREAMS)))
        wall_s, gb = time.perf_counter() - begun, sum(answer["gb"] for answer in answers)
        sent = sum(len(answer["call_s"]) for answer in answers)
        return {
            "pace": plan.seconds / max(answer["wall_s"] for answer in answers) if wall_s else 0.0,
            "readable": sum(_readable(server, answer["data_id"]) for answer in answers) / sent,
            "server_cpu": (server.cpu_s() - cpu) / gb,
            "client_cpu": sum(answer["cpu_s"] for answer in answers) / gb,
            "rss": max(most),
        }


def _client(plan: Plan, size: tuple[int, int], server: Served, name: str) -> dict[str, Any]:
    return work(sys.executable, "camera", {
        **server.login, "frames": str(frames_file(plan.shm, *size, plan.chunk)), "fps": plan.fps,
        "chunk": plan.chunk, "spool": str(plan.shm / f"ingest-{name}"), "seconds": plan.seconds,
    })  # fmt: skip


def _readable(server: Served, data_id: str) -> int:
    """Return the number of frames that a Zarr reader finds; the last chunk is decoded."""
    path = server.folder / "streams" / data_id / "frames.zarr" / "frames"
    frames: Any = zarr.open_array(str(path), mode="r")
    return int(frames.shape[0]) if frames[-1:].any() else 0


class _watch:  # noqa: N801  (a context manager, used like a function)
    """Samples the resident memory of the server four times per second."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._seen = [server.rss()]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.25):
            self._seen.append(self._server.rss())


if __name__ == "__main__":
    main(measure)
