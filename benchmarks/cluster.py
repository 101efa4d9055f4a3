"""Table of faults of a whole cluster on this machine: ``python -m benchmarks.cluster [--times N] [ROW ...]``.

Two servers, two analysis processes, NATS, S3 (SeaweedFS) and PostgreSQL, each killed by SIGKILL ``--times`` times while
two clients stream, and analysis processes that are frozen for 6 s; then a service that is unreachable, or does not
answer, for 30 s. Every second stream has chunks of 0.1 s, which are merged in the store meanwhile. Afterwards each
stored frame is compared with what was sent, and each result with that of a process without faults. The exit code is 1
if anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
from pathlib import Path

from tests.cluster.kill_rig import CHUNK, FPS, KINDS, OUTAGE_S, OUTAGES, Outcome, Rig, running_cluster

HEADS = (
    *(
        "part",
        "times",
        "frames",
        "lost",
        "altered",
        "unmerged",
        "no result",
        "doubled",
        "gaps",
        "differing",
        "refused",
    ),
    *("longest hole s", "results after end s", "caught up s"),
)
SECONDS_EACH = 10.0


def main() -> int:
    """Run the rows and print each when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = [*KINDS, *OUTAGES]
    parser.add_argument("rows", nargs="*", choices=[[], *rows], help="parts; all of them by default")
    parser.add_argument("--times", type=int, default=5, help="kills of each part")
    parser.add_argument("--streams", type=int, default=2, help="streams at the same time")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="speed of the streams; less on a computer without free cores"
    )
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is stopped in that case too
    return asyncio.run(_run(asked.rows or rows, asked.times, asked.streams, asked.pace))


async def _run(rows: list[str] | tuple[str, ...], times: int, n_streams: int, pace: float) -> int:
    print(_line(HEADS), _line(["-" * len(head) for head in HEADS]), sep="\n", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="atomstream-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chmod(name, 0o755)  # PostgreSQL may run as another user
        async with running_cluster(folder / "cluster") as cluster:
            for row in ("none", *rows):
                faults = [] if row == "none" else [row] * (1 if row in OUTAGES else times)
                seconds = SECONDS_EACH * (len(faults) + 1) + (3 * OUTAGE_S if row in OUTAGES else 0.0)
                n_chunks = max(6, int(seconds * pace * FPS / CHUNK))
                rig = Rig(cluster, n_streams, n_chunks)
                outcome = await rig.run(faults, folder / row.replace(" ", "-"), pace)
                bad += not outcome.clean
                print(_line(_cells(row, len(faults), n_streams * n_chunks * CHUNK, outcome)), flush=True)
    return 1 if bad else 0


def _cells(row: str, times: int, n_frames: int, outcome: Outcome) -> list[str]:
    counts = (
        outcome.lost,
        outcome.altered,
        outcome.unmerged,
        outcome.without_result,
        outcome.doubled,
        outcome.gaps,
    )
    more = (outcome.differing, outcome.refused, outcome.hole_s, outcome.after_end_s, outcome.caught_up_s)
    return [row, str(times), str(n_frames), *map(str, counts), *map(str, more)]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "  ".join(cell.rjust(len(head)) for cell, head in zip(cells, HEADS, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
