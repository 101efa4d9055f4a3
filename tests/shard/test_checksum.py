"""The CRC of a shard follows from the CRCs of its parts, for any lengths."""

from __future__ import annotations

from functools import reduce

import google_crc32c
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atomstream.records import Chunk, Timestamp
from atomstream.shard import ShardEncoder, assemble, slice_bound
from atomstream.shard.checksum import Crc32c


def crc_of(part: bytes) -> Crc32c:
    """The CRC-32C of a part, computed by google_crc32c."""
    return Crc32c(google_crc32c.value(part), len(part))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=9))
def test_combined_crcs_of_parts(parts: list[bytes]) -> None:
    """The combined CRC of parts equals the CRC of their joined bytes, also with empty parts."""
    assert reduce(Crc32c.combine, map(crc_of, parts)) == crc_of(b"".join(parts))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1 << 10, (1 << 20) - 1, 3 << 20, (1 << 23) + 12345]))
def test_combined_crcs_of_long_parts(seed: int, nbytes: int) -> None:
    """The same holds for parts whose length has many bits."""
    long = np.random.default_rng(seed).bytes(nbytes)
    assert crc_of(b"head").combine(crc_of(long)) == crc_of(b"head" + long)


def test_a_shard_made_in_slices_has_the_right_crc() -> None:
    """A shard assembled from any number of slices states the CRC-32C of its bytes."""
    frames = np.random.default_rng(0).integers(0, 60, (7, 32, 48), dtype=np.uint8)
    chunk, encoder = Chunk("s", 0, frames, Timestamp(0.0)), ShardEncoder()
    for cuts in ([7], [3, 4], [1, 2, 4], [1] * 7):
        slices, at = [], 0
        for n in cuts:
            memory = memoryview(bytearray(slice_bound(n, frames[0].nbytes)))
            slices.append(encoder.compress(frames[at : at + n], memory))
            at += n
        shard = assemble(chunk, slices)
        sent = b"".join(shard.pieces)
        assert (shard.info.crc32c, shard.info.nbytes) == crc_of(sent)
