"""Runs that several benchmarks share, alternating between the programs; each is done once."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.frames import frames_file
from benchmarks.processes import MODULES, work
from benchmarks.report import Who
from benchmarks.runner import Plan
from benchmarks.sink import Sink, running_sink
from benchmarks.venvs import ACQUIRE, PEER, python_of

Answer = dict[str, Any]
Size = tuple[int, int]
GB_OURS = 6.0
"""Raw frames of one of our unpaced runs, some seconds of them; a slower program gets fewer."""
GB_OTHERS = 1.0


def pythons() -> dict[Who, Path | None]:
    """Programs that can be run on this machine, and their Python."""
    return {"ours": Path(sys.executable), "peer": python_of(PEER), "acquire": python_of(ACQUIRE)}


@cache
def unpaced(plan: Plan, size: Size, *, on_disk: bool = False) -> dict[Who, list[Answer]]:
    """Run all programs as fast as possible, ``plan.repeats`` times in turn: ours, peer, acquire and the bare steps."""
    answers: dict[Who, list[Answer]] = {}
    with running_sink() as sink:
        for k in range(plan.repeats):
            for who, python in pythons().items():
                if python is not None:
                    answer = _one_unpaced(plan, size, who, python, sink, k, on_disk)
                    answers.setdefault(who, []).append(answer)
            answers.setdefault("bare", []).append(bare(plan, size, sink))
    return answers


def _one_unpaced(plan: Plan, size: Size, who: Who, python: Path, sink: Sink, k: int, on_disk: bool) -> Answer:
    frames = frames_file(plan.shm, *size, plan.chunk)
    folder = (plan.disk if on_disk else plan.shm) / f"{who}-{size[0]}-{k}"
    chunks = chunk_count(plan, size, who)
    job = {"frames": str(frames), "spool": str(folder), "chunks": chunks, "mode": "unpaced", "url": sink.url}
    if who == "acquire":
        return work(python, "acquire", job)
    before = sink.received()
    answer = work(python, "pusher", {**job, "fps": plan.fps, "module": MODULES[who]})
    if answer["uploaded"] != chunks:
        raise RuntimeError(f"{who} reports that it uploaded {answer['uploaded']} of {chunks} chunks")
    sent = (sink.received() - before) * chunks / (chunks + answer["warm_up"])
    return {**answer, "ratio": answer["gb"] * 1e9 / sent}


def chunk_count(plan: Plan, size: Size, who: Who) -> int:
    """Return the number of chunks of an unpaced run, so that each program takes some seconds."""
    gb = GB_OURS if who == "ours" else GB_OTHERS
    return 2 if plan.quick else max(3, round(gb * 1e9 / (plan.chunk * size[0] * size[1])))


def bare(plan: Plan, size: Size, sink: Sink) -> Answer:
    """Measure the bare steps with the same frames."""
    job = {
        "frames": str(frames_file(plan.shm, *size, plan.chunk)),
        "spool": str(plan.shm / "bare"),
        "times": 1 if plan.quick else 3,
        "url": sink.url,
    }
    return work(sys.executable, "bare", job)


@cache
def paced(plan: Plan, size: Size) -> dict[Who, list[Answer]]:
    """Push chunks in real time through our client and the peer's, in turn."""
    answers: dict[Who, list[Answer]] = {}
    period = 0.05 if plan.quick else plan.chunk / plan.fps
    chunks = 2 if plan.quick else max(4, round(plan.seconds / period))
    with running_sink() as sink:
        for k in range(plan.repeats):
            for who in ("ours", "peer"):
                python = pythons()[who]
                if python is None:
                    continue
                job = {
                    "frames": str(frames_file(plan.shm, *size, plan.chunk)), "url": sink.url, "mode": "paced",
                    "spool": str(plan.shm / f"paced-{who}-{size[0]}-{k}"), "chunks": chunks, "fps": plan.fps,
                    "period_s": period, "module": MODULES[who],
                }  # fmt: skip
                answers.setdefault(who, []).append(work(python, "pusher", job))
    return answers
