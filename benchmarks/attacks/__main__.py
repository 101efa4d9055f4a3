"""The table of attacks: ``python -m benchmarks.attacks [--quick] [CASE ...]``.

Each case attacks a real server with 1,024 handles while a stream runs. A row has the requests and the answers, the peak
of the server's memory (with its workers; at most its setting ``memory_bytes`` + 10 %), and the effect on the running
stream: its slowest chunk, how often a chunk was refused and sent again, and how many acknowledged chunks are not in the
archive. The exit code is 1 if a case is not right.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.attacks import insiders, memory, strangers
from benchmarks.attacks.bystander import bystander
from benchmarks.attacks.rig import Outcome, Rig
from benchmarks.lab_server import LabServer

Case: TypeAlias = Callable[[Rig, float], Awaitable[Outcome]]

CASES: Final[Mapping[str, Case]] = {**strangers.CASES, **insiders.CASES, **memory.CASES}
HEADS: Final = (
    "case",
    "tries",
    "answer",
    "memory before",
    "peak",
    "slowest chunk",
    "sent again",
    "lost",
    "right",
)
LIMIT_MB: Final = 1280
"""The setting ``memory_bytes`` of the server, in MiB: not much more than the least with two analysis processes."""
MOST_MB: Final = 1.1 * LIMIT_MB
"""The most that it may need with its analysis processes."""


async def attack(rig: Rig, name: str, size: float) -> tuple[list[str], bool]:
    """The cells of one row, and whether all is as it should be."""
    before = rig.server.memory_mb()
    rig.server.peak_mb = before
    try:
        async with rig.camera():
            outcome = await CASES[name](rig, size)
    except Exception as error:  # a case that fails is a row, and the others are run
        outcome = Outcome(0, f"{type(error).__name__}: {error}", False)
    lost, running = rig.lost(), rig.running
    slowest = max(running.delays_s, default=0.0)
    right = outcome.right and lost == 0 and rig.server.peak_mb < MOST_MB
    cells = [
        name,
        str(outcome.tries),
        outcome.answer.replace("|", "/"),
        f"{before:.0f} MiB",
        f"{rig.server.peak_mb:.0f} MiB",
        f"{slowest:.2f} s",
        str(running.refused),
        str(lost),
        "yes" if right else "**NO**",
    ]
    return cells, right


def line(cells: Sequence[str]) -> str:
    """A row of the table."""
    return f"| {' | '.join(cells)} |"


def run(names: Sequence[str], size: float, folder: Path, show: Callable[[str], None]) -> bool:
    """Run these cases on one server; ``show`` gets each line of the table. True if all are right."""
    server = LabServer(folder, "--limit", f"memory_bytes={LIMIT_MB << 20}")
    server.start()
    show(line(HEADS))
    show(line(["---"] * len(HEADS)))
    good = True
    try:
        with bystander(server.url, server.api_key) as stream:
            for name in names:
                cells, right = asyncio.run(attack(Rig(server, stream), name, size))
                good = good and right
                show(line(cells))
    finally:
        server.stop()
    return good


def main() -> int:
    """Run the chosen cases, and print each row when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="words of the names of cases; all of them by default")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the tries")
    asked = parser.parse_args()
    names = [name for name in CASES if not asked.cases or any(word in name for word in asked.cases)]
    with tempfile.TemporaryDirectory(prefix="atomstream-attacks-") as folder:
        good = run(names, 0.05 if asked.quick else 1.0, Path(folder), lambda text: print(text, flush=True))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
