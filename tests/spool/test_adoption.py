"""Streams that are registered on no server are assigned to one: completely or not at all, also if the process is
killed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from atomstream.errors import SpoolError
from atomstream.spool import LateRegistration, Spool
from tests.spool.spool_helpers import ENDPOINT, FaultyDisk, delivered, new_spool, payload, shard, spec

HERE = "http://127.0.0.1:1"


def offline_stream(spool: Spool, data_id: str, late: LateRegistration | None) -> None:
    """A stream with one chunk, of the endpoint that is not a server."""
    stream = spool.create_stream(HERE, spec(data_id), late=late)
    stream.put(shard(0, data_id=data_id))
    stream.close()


def test_streams_without_a_server_are_adopted(memory_path: Path) -> None:
    """Their chunks are those of the new endpoint then; registered and locked streams stay."""
    spool = new_spool(memory_path)
    offline_stream(spool, "local-a", LateRegistration(sample="GaN"))
    offline_stream(spool, "registered", LateRegistration(server_id="x"))
    offline_stream(spool, "known", None)
    locked = spool.create_stream(HERE, spec("local-locked"), late=LateRegistration())
    assert spool.adopt(HERE, ENDPOINT) == ["local-a"]
    assert spool.adopt(HERE, ENDPOINT) == []
    locked.close()
    stream = new_spool(memory_path).open_stream(ENDPOINT, "local-a")
    assert delivered(stream, 0) == payload(shard(0, data_id="local-a"))
    assert stream.manifest.late == LateRegistration(sample="GaN")
    stream.close()
    left = sorted(one.folder.name for one in spool.streams(HERE))
    assert left == ["known", "local-locked", "registered"]


@pytest.mark.parametrize("late", [False, True])
def test_a_crash_between_its_steps_loses_nothing(memory_path: Path, late: bool) -> None:
    """Whichever call of the disk is the last one, the next call completes the move, and the chunk is there once."""
    for failing in range(200):
        root = memory_path / str(failing)
        offline_stream(new_spool(root), "local-a", LateRegistration())
        disk = FaultyDisk()
        spool = new_spool(root, disk)
        before = len(disk.calls)
        disk.first, disk.last, disk.late = before + failing, 10_000, late
        with suppress(SpoolError, OSError):
            spool.adopt(HERE, ENDPOINT)
        succeeded = len(disk.calls) <= disk.first
        again = new_spool(root)
        again.adopt(HERE, ENDPOINT)
        stream = again.open_stream(ENDPOINT, "local-a")
        assert delivered(stream, 0) == payload(shard(0, data_id="local-a")), f"call {failing} of {disk.calls}"
        stream.close()
        with pytest.raises(SpoolError):
            again.open_stream(HERE, "local-a")
        if succeeded:
            break
    else:
        pytest.fail("the move never succeeded")
    assert failing > 5
