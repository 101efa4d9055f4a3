"""Shared memory for decoded frames: transferred complete, bounded, removed at the end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from atomstream.server.live.shared_frames import SharedBlock, SharedFrames, UploadTap


async def block_of(shared: SharedFrames, nbytes: int) -> SharedBlock:
    """A shared block, once there is one."""
    while (slot := shared.acquire(nbytes)) is None:
        await asyncio.sleep(0)
    return slot


async def test_frames_are_there_as_written() -> None:
    """A worker reads exactly the frames that the ingest wrote."""
    shared = SharedFrames(1000)
    slot = await block_of(shared, 4 * 6 * 8)
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 8), dtype=np.uint8)
    for k in (0, 1, 2, 3):
        slot.write(k, frames[k])
    assert slot.path.read_bytes()[: frames.nbytes] == frames.tobytes()
    shared.release(slot)
    await shared.close()
    assert not slot.path.exists()
    assert not slot.path.parent.exists()


async def test_a_deleted_folder() -> None:
    """A block without its file is not used again; the next ones are in a new folder."""
    shared = SharedFrames(2000)
    slot = await block_of(shared, 600)
    while slot.path.parent.exists():  # a thread may be creating another block there
        shutil.rmtree(slot.path.parent, ignore_errors=True)
    shared.release(slot)
    other = await block_of(shared, 600)
    assert other.path.exists()
    assert other.path.parent != slot.path.parent
    shared.release(other)
    await shared.close()
    assert not other.path.parent.exists()


async def test_a_folder_deleted_while_a_block_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """This block is not created, and the bound does not change: the next one is created."""
    shared = SharedFrames(1000)

    def removed(path: Path, nbytes: int) -> SharedBlock:
        monkeypatch.undo()
        shutil.rmtree(path.parent)
        return SharedBlock(path, nbytes)

    monkeypatch.setattr("atomstream.server.live.shared_frames.SharedBlock", removed)
    slot = await block_of(shared, 1000)
    assert slot.path.exists()
    shared.release(slot)
    await shared.close()


async def test_never_more_than_its_bound() -> None:
    """With all blocks in use there is none; a released one is used again, or replaced by one of another size."""
    shared = SharedFrames(1000)
    assert shared.acquire(2000) is None
    first = await block_of(shared, 600)
    assert shared.acquire(600) is None
    await asyncio.sleep(0)
    assert shared.acquire(600) is None
    shared.release(first)
    assert shared.acquire(500) is first
    shared.release(first)
    other = await block_of(shared, 900)
    assert not first.path.exists()
    shared.release(other)
    await shared.close()


async def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """If no block can be created there is none, and nothing fails."""
    shared = SharedFrames(1 << 62)
    assert shared.acquire(1 << 61) is None
    await shared.close()
    assert not list(tmp_path.iterdir())


async def test_blocks_in_use_at_the_end() -> None:
    """A block that is never released, or too late, keeps no file open."""
    shared = SharedFrames(10_000)
    kept, late = await block_of(shared, 600), await block_of(shared, 600)
    await shared.close()
    shared.release(late)
    for slot in (kept, late):
        with pytest.raises(ValueError, match="closed"):
            slot.write(0, np.zeros((2, 2), np.uint8))
        assert not slot.path.exists()


async def test_a_block_is_never_free_twice() -> None:
    """A second release has no effect: otherwise two uploads would write into one block."""
    shared = SharedFrames(2000)
    block = await block_of(shared, 600)
    shared.release(block)
    shared.release(block)
    assert shared.acquire(600) is block
    other = shared.acquire(600)
    assert other is not block
    await shared.close()


FRAME = np.zeros((2, 2), np.uint8)


async def test_a_block_is_taken_only_when_it_is_full() -> None:
    """A tap transfers its block after the last frame, also after a second try, and once; else it keeps it."""
    shared = SharedFrames(1000)
    tap = UploadTap(shared, await block_of(shared, 12), 3)
    assert tap.observe is not None
    for k in (0, 1, 0, 1):  # the second try starts at the first frame
        tap.observe(7, k, FRAME)
        assert tap.pop() is None
    tap.observe(7, 2, FRAME)
    block = tap.pop()
    assert block is not None
    assert tap.pop() is None
    tap.close()
    assert shared.in_use == 1  # it belongs to the caller that took it
    shared.release(block)
    assert shared.in_use == 0
    await shared.close()


async def test_a_tap_releases_an_unused_block() -> None:
    """After a repeat, an error or a cancelled upload; a thread that still decodes writes nothing more."""
    shared = SharedFrames(1000)
    tap = UploadTap(shared, await block_of(shared, 12), 3)
    assert tap.observe is not None
    tap.observe(7, 0, FRAME)
    tap.close()
    assert shared.in_use == 0
    block = shared.acquire(12)
    assert block is not None
    block.write(1, FRAME + 5)
    tap.observe(7, 1, FRAME)
    assert block.path.read_bytes()[4:8] == bytes([5] * 4)
    await shared.close()


async def test_frames_that_cannot_be_shared() -> None:
    """An error while frames are shared does not fail the upload: the analysis decodes the stored chunk."""
    shared = SharedFrames(1000)
    block = await block_of(shared, 8)
    tap = UploadTap(shared, block, 2)
    block.close()
    assert tap.observe is not None
    tap.observe(7, 0, FRAME)
    tap.observe(7, 1, FRAME)
    assert tap.pop() is None
    tap.close()
    await shared.close()
