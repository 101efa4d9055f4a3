"""Encoder threads: which chunks get more of their time."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from atomstream.pipeline.encoder import Encoder, Job
from atomstream.pipeline.gate import Gate
from atomstream.records import Chunk, FrameMeta, Shard, Stamp
from atomstream.shard import decode_shard


def job(index: int, frames: np.ndarray) -> Job:
    permit = Gate(10**9).try_enter("s", 1)
    assert permit is not None
    return Job(Chunk("s", index, frames, Stamp(0.0), FrameMeta()), permit, None, with_meta=False)


def smooth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :300]
    picture = 4000 * np.exp(-((x - 150) ** 2 + (y - 90) ** 2) / 5000.0)
    return (picture + rng.normal(0, 8, (4, 200, 300)) + 100).astype(np.uint16)


@pytest.fixture
def shards() -> queue.Queue[Shard | BaseException]:
    return queue.Queue()


def run(lags: bool, frames: list[np.ndarray], shards: queue.Queue[Shard | BaseException]) -> list[Shard]:
    encoder = Encoder(1, 1, lambda job, outcome: shards.put(outcome), lambda: lags)
    for index, one in enumerate(frames):
        encoder.submit(job(index, one))
    made = [shards.get(timeout=60) for _ in frames]
    for thread in encoder.stop():
        thread.join(60)
    assert all(isinstance(shard, Shard) for shard in made)
    return made  # type: ignore[return-value]


def test_a_lagging_uplink_gets_smaller_shards(shards: queue.Queue[Shard | BaseException]) -> None:
    """While the uplink lags a 16-bit chunk is made markedly smaller, with the same frames in it."""
    frames = smooth(1)
    (quick,), (dense,) = run(False, [frames], shards), run(True, [frames], shards)
    assert dense.nbytes < 0.97 * quick.nbytes
    assert dense.digest == quick.digest
    decoded = decode_shard(b"".join(map(bytes, dense.pieces)), dense.dims, dense.dtype)
    assert np.array_equal(decoded, frames)


def test_chunks_that_wait_are_encoded_quickly(shards: queue.Queue[Shard | BaseException]) -> None:
    """A chunk behind which others wait is not made smaller: frames come first."""
    begun, go_on = threading.Event(), threading.Event()

    def lags() -> bool:
        begun.set()
        go_on.wait(60)
        return True

    encoder = Encoder(1, 1, lambda job, outcome: shards.put(outcome), lags)
    encoder.submit(job(0, smooth(0)))
    assert begun.wait(60)
    for index in (1, 2, 3):
        encoder.submit(job(index, smooth(1)))
    go_on.set()
    made = {shard.index: shard.nbytes for shard in (shards.get(timeout=60) for _ in range(4))}  # type: ignore[union-attr]
    for thread in encoder.stop():
        thread.join(60)
    assert made[1] == made[2] > made[3]
