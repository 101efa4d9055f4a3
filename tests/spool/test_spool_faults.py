"""A fault at every single disk call: no acknowledged data is lost, and the next start works (P13)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.spool import StreamSpool
from tests.spool.spool_helpers import (
    FaultyDisk,
    delivered,
    new_spool,
    new_stream,
    payload,
    reopened,
    shard,
)


class StepResults:
    """The steps of a scenario that were acknowledged."""

    def __init__(self) -> None:
        self.done: dict[int, str] = {}
        self.maybe: dict[int, set[str]] = {}

    @contextmanager
    def step(self, index: int, state: str) -> Iterator[None]:
        try:
            yield
        except SpoolError:
            self.maybe.setdefault(index, {self.done.get(index, "none")}).add(state)
        else:
            self.done[index] = state
            self.maybe.pop(index, None)


def run_scenario(stream: StreamSpool, results: StepResults) -> None:
    """A scenario with every kind of step; each one runs whether or not the previous one worked."""
    for index in range(4):
        with results.step(index, "pending"):
            stream.put(shard(index))
    for index, state, act in _ends(stream):
        with results.step(index, state):
            act()
    with results.step(4, "pending"):
        stream.put(shard(4))
    if results.done.get(2) == "quarantined":
        with results.step(2, "pending"):
            stream.requeue(2)


def _ends(stream: StreamSpool) -> list[tuple[int, str, Callable[[], None]]]:
    return [
        (0, "stored", lambda: stream.mark_stored(0)),
        (1, "dropped", lambda: stream.discard(1, "dropped", "no room")),
        (2, "quarantined", lambda: stream.quarantine(2, "422")),
    ]


def check(stream: StreamSpool, results: StepResults, context: object) -> None:
    """Every acknowledged step took effect; a refused one took effect completely or not at all."""
    for index in range(5):
        allowed = results.maybe.get(index, {results.done.get(index, "none")})
        state = stream.journal_state.states.get(index, "none")
        assert state in allowed, (index, state, allowed, context)
        assert (index in stream.pending()) == (state == "pending"), (index, context)
        assert (index in stream.quarantined()) <= (state == "quarantined"), (index, context)
    for index in stream.pending():
        assert delivered(stream, index) == payload(shard(index)), (index, context)
    if results.done.get(2) == "quarantined" and 2 not in results.maybe:
        assert stream.quarantined() == [2], context


def attempt(root: Path, disk: FaultyDisk) -> StepResults:
    results = StepResults()
    try:
        stream = new_stream(root, disk)
    except SpoolError:
        return results
    run_scenario(stream, results)
    try:
        stream.close()
    except SpoolError:
        assert disk.calls[-1] == "close"
    return results


FAULTS = [(code, late) for code in (errno.EIO, errno.ENOSPC, errno.EROFS) for late in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize("last", [None, 1 << 30], ids=["one call", "a disk that dies"])
@pytest.mark.parametrize(("code", "late"), FAULTS)
def test_failing_calls(memory_path: Path, code: int, late: bool, last: int | None) -> None:
    """If any one disk call fails, or all from some moment on, no acknowledged data is lost and the next start works."""
    clean = FaultyDisk()
    assert len(attempt(memory_path / "clean", clean).done) == 5
    for number in range(len(clean.calls)):
        disk = FaultyDisk(number, last, code=code, late=late)
        results = attempt(memory_path / str(number), disk)
        if results.done or results.maybe:
            reopened_stream = reopened(memory_path / str(number))
            check(reopened_stream, results, (number, disk.calls[number]))
            reopened_stream.close()


@pytest.mark.slow
@pytest.mark.parametrize(("code", "late"), FAULTS)
def test_a_fault_while_opening(memory_path: Path, code: int, late: bool) -> None:
    """A fault while the stream is opened does not change its data."""
    results = StepResults()
    stream = new_stream(memory_path)
    run_scenario(stream, results)
    stream.close()
    for number in range(200):
        (stream.folder / "stream.json").write_text("damaged")
        with (stream.folder / "journal").open("ab") as file:
            file.write(b"\xa7Jtorn")
        disk = FaultyDisk(number, code=code, late=late)
        with suppress(SpoolError):
            opened = reopened(memory_path, disk)
            disk.recover()
            check(opened, results, number)
            opened.close()
        reopened_stream = reopened(memory_path)
        check(reopened_stream, results, number)
        reopened_stream.close()
        if len(disk.calls) <= number:
            return
    pytest.fail("the faults never got past the opening")


def test_records_are_removed_on_a_full_disk(memory_path: Path) -> None:
    """On a disk too full for a journal entry, stored records are removed nevertheless, and stay removed."""
    disk = FaultyDisk(code=errno.ENOSPC)
    stream = new_stream(memory_path, disk)
    for index in range(3):
        stream.put(shard(index))
    stream.quarantine(2, "422")
    real = disk.write
    disk.write = lambda fd, pieces: _refuse()  # type: ignore[method-assign,misc]
    stream.mark_stored(0)
    stream.discard(1, "purged", "asked for")
    stream.discard(2, "purged", "asked for")
    with pytest.raises(SpoolFullError):
        stream.mark_stored(9)
    assert stream.pending() == []
    assert sum(path.stat().st_size for path in stream.folder.glob("chunk-*")) == 0
    assert new_spool(memory_path).status()["bytes"] == 0
    disk.write = real  # type: ignore[method-assign]
    stream.close()
    reopened_stream = reopened(memory_path)
    assert reopened_stream.journal_state.states == {0: "stored", 1: "purged", 2: "purged"}
    assert not list(reopened_stream.folder.glob("chunk-*"))
    reopened_stream.close()


def _refuse() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_error_message_of_a_fault(memory_path: Path) -> None:
    """The error message names the chunk, the file and the reason, and states what is safe and what to do."""
    disk = FaultyDisk(code=errno.ENOSPC)
    stream = new_stream(memory_path, disk)
    disk.first = disk.last = len(disk.calls) + 2
    with pytest.raises(SpoolFullError, match=r"chunk 5 of stream .*chunk-00000005\.rec.*Free some space"):
        stream.put(shard(5))
    assert stream.put(shard(5)) is not None
    stream.close()
