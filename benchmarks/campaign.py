"""Table of fault injection: ``python -m benchmarks.campaign [--quick] [--peer PYTHON] [ROW ...]``.

Each row causes one fault with real processes, disks and sockets, removes it, and compares the server byte for byte
with what was accepted (or acknowledged as durable, if the process was killed). The rows are defined in tests/faults
and also run as tests. With ``--peer`` the client of the hosted service, run by that Python, gets the faults that are
possible without changing it. The exit code is 1 if a row of this project has an error.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.fault_helpers import Tally
from tests.faults.fault_peer import PeerRig
from tests.faults.fault_peer import rows as peer_rows
from tests.faults.fault_rig import Rig
from tests.faults.fault_table import ROWS, SEED

HEADS = ("fault", "who", "tries", "chunks", "stored", "aside", "lost", "corrupted", "duplicated")
PEER_TRIES = 24


def main() -> int:
    """Run the selected rows, print each when it is done, and then the errors."""
    asked = _arguments()
    logging.disable(logging.CRITICAL)  # faults are reported in the table
    print(_line(HEADS), _line(["-" * len(head) for head in HEADS]), sep="\n", flush=True)
    shown = [tally for row, tally in _ours(asked.rows, asked.quick) if _show(row, "atomstream", tally)]
    ours = [tally for tally in shown if isinstance(tally, Tally)]
    if asked.peer:
        for row, tally in _peers(asked.rows, asked.peer, 6 if asked.quick else PEER_TRIES):
            _show(row, "peer", tally)
    bad = [tally for tally in ours if not tally.clean]
    print(
        f"\n{len(ours)} faults, {sum(tally.tries for tally in ours)} tries, {len(bad)} not clean. Seed {SEED}."
    )
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="names of rows; all of them by default")
    parser.add_argument("--quick", action="store_true", help="as many tries as the tests make in CI")
    parser.add_argument(
        "--peer", type=Path, metavar="PYTHON", help="a Python that has the hosted service's client"
    )
    return parser.parse_args()


def _ours(names: Sequence[str], quick: bool) -> Iterator[tuple[str, Tally | str]]:
    with _rig(Rig) as rig:
        for row in ROWS:
            if not names or row.name in names:
                yield row.name, row.why_not() or (row.quick if quick else row.full)(rig)
    if not names or "power_cut" in names:
        yield "power_cut", power_cuts(1 if quick else 5)


def _peers(names: Sequence[str], python: Path, tries: int) -> Iterator[tuple[str, Tally | str]]:
    with _rig(lambda folder: PeerRig(folder, python)) as rig:
        for row, way in peer_rows(tries):
            if not names or row.name in names:
                yield row.name, row.why_not() or _survived(way, rig)


def _survived(way: Callable[[Rig], Tally], rig: Rig) -> Tally | str:
    try:
        return way(rig)
    except Exception as error:  # an error of the peer is a result and must not end the table
        rig.server.go_on()
        return f"the row could not be finished: {error!r}"[:150]


def power_cuts(seeds: int) -> Tally:
    """Simulate a power cut after each step of a spool, with all, none or some unsynced data kept (tests/spool)."""
    from test_power_cut import play

    tally = Tally("power cut at any step; unsynced data there or not")
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                tally.tries += play(Path(folder), [0.0, 1.0, 0.5], seed)
            except AssertionError as error:
                tally.count_failure("lost", repr(error))
    tally.chunks = tally.stored = 6 * tally.tries
    return tally


@contextmanager
def _rig(make: Callable[[Path], Rig]) -> Iterator[Rig]:
    folder = Path(tempfile.mkdtemp(prefix="atomstream-campaign-"))
    try:
        with make(folder / "rig") as rig:
            yield rig
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(name: str, who: str, tally: Tally | str) -> bool:
    """Print a row; return True if it was run."""
    if isinstance(tally, str):
        print(f"| {name} ({who}): not run, {tally}", flush=True)
        return False
    counts = (
        tally.tries,
        tally.chunks,
        tally.stored,
        tally.quarantined,
        tally.lost,
        tally.corrupted,
        tally.duplicated,
    )
    print(_line([tally.fault, who, *map(str, counts)]), flush=True)
    for note in tally.notes[:3]:
        print(f"|     {note[:300]}", flush=True)
    return True


def _line(cells: Sequence[str]) -> str:
    widths = (66, 10, 6, 7, 7, 6, 5, 9, 10)
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


if __name__ == "__main__":
    random.seed(SEED)
    sys.exit(main())
