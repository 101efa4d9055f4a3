"""Plan, work folders and command line of the benchmarks.

Each benchmark module has ``measure(plan) -> list[Row]``, which the overview and the module itself call.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Host, machine_lines
from benchmarks.report import Report, Row


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a run. ``quick`` only checks that everything runs: small frames, one run, no useful figures.

    ``repeats`` is the number of alternating runs, ``seconds`` the length of each real-time run, ``shm`` a folder in
    memory and ``disk`` one on disk.
    """

    quick: bool
    repeats: int
    seconds: float
    shm: Path
    disk: Path

    def sizes(self) -> list[tuple[int, int]]:
        """Frame sizes (H, W) to measure."""
        return [(48, 64)] if self.quick else [(480, 640), (1024, 1024)]

    @property
    def fps(self) -> float:
        """Frame rate of the simulated camera in 1/s."""
        return 120.0

    @property
    def chunk(self) -> int:
        """Frames per chunk: 2 s, as the hosted service requires."""
        return 240


Measure = Callable[[Plan], list[Row]]


def main(measure: Measure, arguments: list[str] | None = None) -> None:
    """Command line of one benchmark or of all: measure and print the table."""
    with planned(arguments) as plan:
        report, host = Report(machine_lines()), Host()
        report.rows += measure(plan)
        report.machine = [*report.machine, host.line()]
        print(report)


@contextmanager
def planned(arguments: list[str] | None = None) -> Iterator[Plan]:
    """Make the plan from the command line; its folders are deleted at the end of the block."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="only prove that it runs")
    parser.add_argument("--repeats", type=int, help="alternating runs (3)")
    parser.add_argument("--seconds", type=float, help="length of each paced run (60)")
    given = parser.parse_args(arguments)
    with _folder(_memory_folder()) as shm, _folder(None) as disk:
        yield Plan(
            quick=given.quick,
            repeats=given.repeats or (1 if given.quick else 3),
            seconds=given.seconds or (0.5 if given.quick else 60.0),
            shm=shm,
            disk=disk,
        )


@contextmanager
def _folder(parent: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="atomstream-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory_folder() -> str | None:
    # A RAM disk where the system has one; elsewhere the rows that name a tmpfs use the temporary folder.
    return "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
