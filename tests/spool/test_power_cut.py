"""Simulated power cuts: all acknowledged changes exist afterwards (P10)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atomstream.spool import JournalEntry, StreamSpool
from tests.spool.spool_helpers import DATA_ID, ENDPOINT, delivered, new_spool, payload, reopened, shard, spec
from tests.system.power_cut import RecordingFileSystem, Replay

STATES = {
    "put": "pending",
    "forget": "stored",
    "drop": "dropped",
    "set aside": "quarantined",
    "requeue": "pending",
}


def life(root: Path, disk: RecordingFileSystem) -> None:
    """Two processes use one stream one after the other; each step is logged before and after it."""
    stream = _step(disk, "claim", -1, lambda: new_spool(root, disk).create_stream(ENDPOINT, spec()))
    for index in (0, 1, 2, 3, 5):
        stream.journal.append(JournalEntry("accepted", index, shard(index).info.digest))
        _step(disk, "put", index, lambda i=index: stream.put(shard(i)))
    _step(disk, "forget", 0, lambda: stream.mark_stored(0))
    stream.journal.append(JournalEntry("accepted", 6, shard(6).info.digest))
    _step(
        disk, "put", 6, lambda: stream.put(shard(6))
    )  # overwrites the file of the record that was just stored
    _step(disk, "set aside", 1, lambda: stream.quarantine(1, "422"))
    # As if killed between writing "stored" and syncing it: the next process must sync before it removes records.
    disk.note("forget begins", 5)
    stream.journal.append(JournalEntry("stored", 5))
    stream.close()
    again = reopened(root, disk)
    _step(disk, "drop", 2, lambda: again.discard(2, "dropped", "no room"))
    _step(disk, "requeue", 1, lambda: again.requeue(1))
    _step(disk, "put", 4, lambda: again.put(shard(4)))
    again.journal.append_durable(JournalEntry("finalizing"))
    for index in (1, 3, 4, 6):
        _step(disk, "forget", index, lambda i=index: again.mark_stored(i))
    again.journal.append_durable(JournalEntry("ended"))
    disk.note("removal begins", -1)
    again.remove_if_ended()


def _step(disk: RecordingFileSystem, what: str, index: int, act: Callable[[], Any]) -> Any:
    disk.note(f"{what} begins", index)
    result = act()
    disk.note(what, index)
    return result


def allowed(notes: list[tuple[str, int]]) -> dict[int, set[str]]:
    """The allowed states of each chunk after a power cut at this moment."""
    states: dict[int, set[str]] = {index: {"none"} for index in range(7)}
    for what, index in notes:
        verb = what.removesuffix(" begins")
        if verb not in STATES:
            continue
        states[index] = ({STATES[verb]} | states[index]) if what.endswith("begins") else {STATES[verb]}
    return states


def check(root: Path, notes: list[tuple[str, int]], context: object) -> None:
    if ("claim", -1) not in notes:
        return
    if ("removal begins", -1) in notes and not new_spool(root).recoverable(ENDPOINT):
        return  # all steps were done, so the folder may not exist
    stream = reopened(root)
    if ("removal begins", -1) in notes and not (stream.folder / "stream.json").exists():
        assert stream.pending() == [], context  # a new journal replaced the removed one
    else:
        _check_stream(stream, allowed(notes), context)
    stream.close()


def _check_stream(stream: StreamSpool, states: dict[int, set[str]], context: object) -> None:
    for index, possible in states.items():
        state = stream.journal_state.states.get(index, "none")
        if state == "pending" and index in stream.missing:
            state = "none"  # accepted into memory, not yet written
        assert state in possible, (index, state, possible, context)
        assert (index in stream.pending()) == (state == "pending"), (index, state, context)
        if state == "quarantined":
            assert index in stream.quarantined(), (index, context)
        if state == "pending":
            assert delivered(stream, index) == payload(shard(index)), (index, context)


def play(memory_path: Path, worlds: list[float], seed: int) -> int:
    disk = RecordingFileSystem()
    root = memory_path / "spool"
    life(root, disk)
    draw = random.Random(seed)
    replay, tried = Replay(memory_path), 0
    for moment, entry in enumerate(disk.log):
        replay.step(*entry)
        for keep in worlds:
            world = memory_path / "world"
            replay.leave(world_root(world), keep, draw)
            check(world / "spool", replay.notes, (moment, entry[:2], keep, seed))
            shutil.rmtree(world)
            tried += 1
    return tried


def world_root(world: Path) -> Path:
    world.mkdir()
    return world


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_power_cut_at_any_moment(memory_path: Path) -> None:
    """After a cut at each step, with all, none or some unsynced changes kept, nothing acknowledged is missing."""
    assert play(memory_path, worlds=[0.0, 1.0, 0.5], seed=1) > 300


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_many_power_cuts(memory_path: Path, seed: int) -> None:
    """Power cuts at any moment, with many more random subsets of unsynced changes."""
    play(memory_path, worlds=[0.2, 0.5, 0.5, 0.8], seed=seed)


def test_the_simulation_detects_a_missing_sync(memory_path: Path) -> None:
    """The simulation detects a file system that does not sync."""

    class Careless(RecordingFileSystem):
        def sync(self, fd: int) -> None:
            """Do nothing."""

    disk = Careless()
    stream = _step(
        disk, "claim", -1, lambda: new_spool(memory_path / "spool", disk).create_stream(ENDPOINT, spec())
    )
    _step(disk, "put", 0, lambda: stream.put(shard(0)))
    stream.close()
    replay = Replay(memory_path)
    for entry in disk.log:
        replay.step(*entry)
    replay.leave(world_root(memory_path / "world"), 0.0, random.Random(0))
    folder = memory_path / "world" / stream.folder.relative_to(memory_path)
    assert not any((folder / "chunk-00000000.rec").read_bytes())
    assert stream.data_id == DATA_ID
