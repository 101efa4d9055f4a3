"""The checksum of a shard follows from those of its parts, whatever their lengths."""

from __future__ import annotations

from functools import reduce

import google_crc32c
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atomstream.records import Chunk, Timestamp
from atomstream.shard import ShardEncoder, assemble, slice_bound
from atomstream.shard.checksum import Crc32c


def sum_of(part: bytes) -> Crc32c:
    """By the library."""
    return Crc32c(google_crc32c.value(part), len(part))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=9))
def test_sums_of_parts_joined(parts: list[bytes]) -> None:
    """The sum of parts in their order is that of their bytes, empty ones included."""
    assert reduce(Crc32c.then, map(sum_of, parts)) == sum_of(b"".join(parts))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1 << 10, (1 << 20) - 1, 3 << 20, (1 << 23) + 12345]))
def test_sums_of_long_parts(seed: int, nbytes: int) -> None:
    """So it is for parts of many bits of length."""
    long = np.random.default_rng(seed).bytes(nbytes)
    assert sum_of(b"head").then(sum_of(long)) == sum_of(b"head" + long)


def test_a_shard_made_in_runs_states_its_own_sum() -> None:
    """A shard put together from any number of runs states the CRC-32C of the bytes it is sent as."""
    frames = np.random.default_rng(0).integers(0, 60, (7, 32, 48), dtype=np.uint8)
    chunk, encoder = Chunk("s", 0, frames, Timestamp(0.0)), ShardEncoder()
    for cuts in ([7], [3, 4], [1, 2, 4], [1] * 7):
        runs, at = [], 0
        for n in cuts:
            memory = memoryview(bytearray(slice_bound(n, frames[0].nbytes)))
            runs.append(encoder.compress(frames[at : at + n], memory))
            at += n
        shard = assemble(chunk, runs)
        sent = b"".join(shard.pieces)
        assert (shard.info.crc32c, shard.info.nbytes) == sum_of(sent)
