"""Encoder threads: shared work, dense encoding, errors, stopping."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from atomstream.pipeline.buffer_pool import FreeList, ScratchPool
from atomstream.pipeline.encoder import EncodeJob, Encoder
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.records import Chunk, FrameMeta, Shard, Timestamp
from atomstream.shard import EncodedSlice, ShardEncoder, decode_shard


def job(index: int, frames: np.ndarray) -> EncodeJob:
    permit = MemoryLimiter(10**9).try_acquire("s", 1)
    assert permit is not None
    return EncodeJob(Chunk("s", index, frames, Timestamp(0.0), FrameMeta()), permit, None, with_meta=False)


def scratch() -> ScratchPool:
    return ScratchPool(FreeList(MemoryLimiter(10**9)))


def smooth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :300]
    picture = 4000 * np.exp(-((x - 150) ** 2 + (y - 90) ** 2) / 5000.0)
    return (picture + rng.normal(0, 8, (4, 200, 300)) + 100).astype(np.uint16)


@pytest.fixture
def shards() -> queue.Queue[Shard | BaseException]:
    return queue.Queue()


def run(lags: bool, frames: list[np.ndarray], shards: queue.Queue[Shard | BaseException]) -> list[Shard]:
    encoder = Encoder(1, 1, lambda job, outcome: shards.put(outcome), lambda: lags, scratch())
    for index, one in enumerate(frames):
        encoder.submit(job(index, one))
    made = [shards.get(timeout=60) for _ in frames]
    for thread in encoder.stop():
        thread.join(60)
    assert all(isinstance(shard, Shard) for shard in made)
    return made  # type: ignore[return-value]


def test_a_slow_uplink_gets_smaller_shards(shards: queue.Queue[Shard | BaseException]) -> None:
    """While the uplink is too slow, a 16-bit chunk is encoded clearly smaller, with equal frames."""
    frames = smooth(1)
    (quick,), (dense,) = run(False, [frames], shards), run(True, [frames], shards)
    assert dense.info.nbytes < 0.97 * quick.info.nbytes
    assert dense.info.digest == quick.info.digest
    decoded = decode_shard(b"".join(map(bytes, dense.pieces)), dense.info.dims, dense.info.dtype)
    assert np.array_equal(decoded, frames)


def test_waiting_chunks_are_encoded_fast(shards: queue.Queue[Shard | BaseException]) -> None:
    """A chunk that arrives while another one is being encoded is not encoded densely."""
    go_on = threading.Event()

    def done(_: EncodeJob, outcome: Shard | BaseException) -> None:
        go_on.wait(60)
        shards.put(outcome)

    encoder = Encoder(1, 1, done, lambda: True, scratch())
    for index in range(3):
        encoder.submit(job(index, smooth(1)))
    go_on.set()
    made = {shard.info.index: shard.info.nbytes for shard in (shards.get(timeout=60) for _ in range(3))}  # type: ignore[union-attr]
    for thread in encoder.stop():
        thread.join(60)
    assert made[0] < made[1] == made[2]


@pytest.mark.parametrize("count", [1, 3, 16, 37])
def test_threads_share_a_chunk(count: int, shards: queue.Queue[Shard | BaseException]) -> None:
    """A shard made by several threads equals the shard of one thread."""
    frames = np.random.default_rng(count).integers(0, 40, (count, 24, 32), dtype=np.uint8)
    encoder = Encoder(3, 3, lambda job, outcome: shards.put(outcome), lambda: False, scratch())
    for index in range(5):
        encoder.submit(job(index, frames))
    made = [shards.get(timeout=60) for _ in range(5)]
    for thread in encoder.stop():
        thread.join(60)
    alone = ShardEncoder(3).encode(Chunk("s", 0, frames, Timestamp(0.0), FrameMeta()), with_meta=False)
    for shard in made:
        assert isinstance(shard, Shard)
        assert shard.info.digest == alone.info.digest
        data = b"".join(map(bytes, shard.pieces))
        assert np.array_equal(decode_shard(data, shard.info.dims, shard.info.dtype), frames)


def test_begun_chunks_are_finished_after_stop(shards: queue.Queue[Shard | BaseException]) -> None:
    """After stop a begun chunk is still finished, a waiting chunk is not, and the threads end."""
    started, go_on = threading.Event(), threading.Event()

    def done(_: EncodeJob, outcome: Shard | BaseException) -> None:
        started.set()
        go_on.wait(60)
        shards.put(outcome)

    encoder = Encoder(1, 1, done, lambda: False, scratch())
    for index in range(3):
        encoder.submit(job(index, smooth(1)))
    assert started.wait(60)
    threads = encoder.stop()
    go_on.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert shards.qsize() == 1
    left = encoder.remove_lowest("s")
    assert left is not None
    assert left.chunk.index == 1


def test_one_slice_that_fails_fails_its_chunk_once(
    shards: queue.Queue[Shard | BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in a slice is reported once, and the next chunk is encoded."""
    compress = ShardEncoder.compress

    def failing(self: ShardEncoder, frames: np.ndarray, memory: memoryview) -> EncodedSlice:
        if frames[0, 0, 0] == 7:
            raise MemoryError("no room")
        return compress(self, frames, memory)

    monkeypatch.setattr(ShardEncoder, "compress", failing)
    bad, good = np.zeros((40, 8, 8), np.uint8), np.ones((40, 8, 8), np.uint8)
    bad[:, 0, 0] = 7
    encoder = Encoder(2, 1, lambda job, outcome: shards.put(outcome), lambda: False, scratch())
    encoder.submit(job(0, bad))
    encoder.submit(job(1, good))
    made = [shards.get(timeout=60) for _ in range(2)]
    for thread in encoder.stop():
        thread.join(60)
    assert sorted(type(one).__name__ for one in made) == ["MemoryError", "Shard"]
    assert shards.empty()
