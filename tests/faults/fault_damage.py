"""Rows of the fault campaign: damaged files in the spool of a dead client (P11, P12)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from tests.faults.fault_helpers import Film, StepLog, Tally
from tests.faults.fault_rig import Rig

Damage = Callable[[Path, int], None]


def flip(path: Path, at: int) -> None:
    """Flip one bit of byte ``at``; which bit depends on ``at``."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at * 5 % 8)
    path.write_bytes(bytes(data))


def tear(path: Path, at: int) -> None:
    """Truncate the file to ``at`` bytes."""
    os.truncate(path, at)


def damaged_records(rig: Rig, step: int, damage: Damage, what: str) -> Tally:
    """Damage record 2k at byte k * step, for every byte of a small record; records with odd indices stay intact.

    A damaged chunk is quarantined and reported; the others are delivered.
    """
    tally = Tally(f"spool: a record {what}")
    film, spool = Film(height=8, width=8, n=1), rig.new_spool()
    _left_behind(rig, film, spool, count=1)
    size = len(next(spool.rglob(rig.records)).read_bytes())
    spool = rig.new_spool()
    steps = _left_behind(rig, film, spool, count=2 * len(range(0, size, step)))
    damaged = {}
    for k, path in enumerate(sorted(spool.rglob(rig.records), key=rig.index_of)[::2]):
        damage(path, k * step)
        damaged[2 * k] = path
    _check_quarantined(rig, film, spool, steps, damaged, tally)
    tally.tries = len(damaged)
    return tally


def _check_quarantined(
    rig: Rig, film: Film, spool: Path, steps: StepLog, damaged: dict[int, Path], tally: Tally
) -> None:
    report = rig.recover(spool, steps.data_id)
    reported = {index for index, _ in report["lost"]} if report else set()
    stored_stream = rig.server.stored_stream(steps.data_id)
    missing = damaged.keys() - stored_stream.chunks.keys()
    quarantined = {k for k in missing if rig.is_quarantined(damaged[k], reported=k in reported)}
    tally.quarantined += len(quarantined)
    tally.check_stream(stored_stream, steps.indices("accepted") - quarantined, steps.indices("pushing"), film)


def damaged_files(rig: Rig, name: str, places: Sequence[float], draw: Random) -> Tally:
    """Damage a small file (journal, stream.json, usage) at these parts of its length, a stream each time.

    No chunk is lost, because the records and the file's second copy have the same information.
    """
    tally = Tally(f"spool: {name} torn or a bit flipped")
    film = Film(height=8, width=8, n=1)
    for place in places:
        spool = rig.new_spool()
        steps = _left_behind(rig, film, spool, count=3)
        path = next(spool.rglob(name))
        size = path.stat().st_size
        draw.choice([flip, tear])(path, min(size - 1, int(place * size)))
        rig.recover(spool, steps.data_id)
        stored_stream = rig.server.stored_stream(steps.data_id)
        tally.check_stream(stored_stream, steps.indices("accepted"), steps.indices("pushing"), film)
    return tally


def foreign_files(rig: Rig, tries: int) -> Tally:
    """Files and folders of other programs in the spool are not read, counted or removed, whatever their names."""
    tally = Tally("spool: other people's files in it")
    film = Film(height=8, width=8, n=1)
    for _ in range(tries):
        spool = rig.new_spool()
        steps = _left_behind(rig, film, spool, count=3)
        strangers = list(_strangers(spool))
        rig.recover(spool, steps.data_id)
        gone = [path for path in strangers if not path.exists() or path.read_text() != "not yours"]
        if gone:
            tally.count_failure("lost", f"foreign files were changed: {gone}")
        stored_stream = rig.server.stored_stream(steps.data_id)
        tally.check_stream(stored_stream, steps.indices("accepted"), steps.indices("pushing"), film)
    return tally


def _strangers(spool: Path) -> Iterable[Path]:
    ours = next(spool.rglob("stream.json")).parent
    for path in (
        spool / "notes.txt", spool / "thesis" / "chapter.tex", ours / "photo.rec", ours / "chunk-1.rec",
        ours / "chunk-00000000.rec.bak", ours.parent / "0000" / "stream.json", ours / "quarantine" / "readme",
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not yours")
        yield path


def _left_behind(rig: Rig, film: Film, spool: Path, count: int) -> StepLog:
    """The spool of a client that was killed while its server did not respond; it has ``count`` records."""
    return rig.leave(film, spool, count)
