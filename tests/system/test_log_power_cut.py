"""Power cuts in the middle of appends: every record that was synced is in the log afterwards."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from atomstream.server.catalogue.names_log import NamesLog, TagCreated
from atomstream.server.live.annotation_records import NewMark
from atomstream.server.live.annotations import Annotations
from atomstream.system.files import load_or_make_secret
from atomstream.system.record_log import RecordLog, is_lost
from tests.system.power_cut import RecordingFileSystem, Replay


def life(root: Path, disk: RecordingFileSystem) -> None:
    """Two processes that append to a log, to the log of names and to a user's marks; the notes mark what is durable."""
    secret = load_or_make_secret(root / "data" / "secret", file_system=disk)
    disk.note("secret", secret[0])
    for first in (0, 6):
        log = RecordLog(root / "data" / "stream" / "inputs.log", file_system=disk)
        for number in range(first, first + 6):
            log.append({"n": number, "text": "x" * number}, durable=number % 3 == 0)
            disk.note("synced" if number % 3 == 0 else "appended", number)
        log.sync()
        disk.note("synced", first + 5)
        log.close()
        NamesLog(root / "data", disk).append(TagCreated(str(first), f"tag {first}", "2026-01-01T00:00:00Z"))
        disk.note("named", first)
        annotations = Annotations(root / "data" / "marks" / "inputs.log", disk)
        annotations.add_event(NewMark("note", f"mark {first}", 1000.0 * first, id=str(first)))
        disk.note("marked", first)
        annotations.close()


def check(left: Path, notes: list[tuple[str, int]], context: object) -> None:
    """What was acknowledged is there, in order, and the log takes more."""
    done = dict(notes)
    if "secret" not in done:
        return
    assert load_or_make_secret(left / "data" / "secret")[0] == done["secret"], context
    log = RecordLog(left / "data" / "stream" / "inputs.log")
    found = [log.read(number) for number in range(1, len(log) + 1)]
    numbers = [record["n"] for record in found if not is_lost(record)]
    synced = max((number for what, number in notes if what == "synced"), default=-1)
    assert numbers[: synced + 1] == list(range(synced + 1)), context
    assert numbers == sorted(numbers), context
    assert log.append({"n": 99}) == len(found) + 1
    log.close()
    annotations = Annotations(left / "data" / "marks" / "inputs.log")
    marks = {event.id for event in annotations.events(0.0)}
    annotations.close()
    assert marks >= {str(number) for what, number in notes if what == "marked"}, context
    names = {line.id for line in NamesLog(left / "data").lines() if isinstance(line, TagCreated)}
    assert names >= {str(number) for what, number in notes if what == "named"}, context


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_moment(memory_path: Path, seed: int) -> None:
    """With all, none or some of what was not synced, every durable record, name and mark is there."""
    disk, root, draw = RecordingFileSystem(), memory_path / "disk", random.Random(seed)
    root.mkdir()
    life(root, disk)
    replay = Replay(root)
    for moment, entry in enumerate(disk.log):
        replay.step(*entry)
        left = memory_path / "left"
        left.mkdir()
        keep = draw.choice([0.0, 0.3, 0.5, 0.7, 1.0])
        replay.leave(left, keep, draw)
        check(left, replay.notes, (moment, entry[:2], keep, seed))
        shutil.rmtree(left)
