"""Decoding of many frames at once: the same frames, and the same errors, as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream import shard as codec
from atomstream.errors import ShardError
from atomstream.records import Chunk, FrameMeta, Frames, Timestamp
from atomstream.shard import batch_decoder


def shard_of(frames: Frames) -> bytes:
    """The bytes of a shard with per-frame data before the frames."""
    meta = FrameMeta(ids=tuple(range(len(frames))))
    return b"".join(codec.ShardEncoder(1).encode(Chunk("id", 0, frames, Timestamp(0.0), meta)).pieces)


def decoded(data: bytes, dims: codec.Dims, dtype: codec.DtypeName, wanted: Any, threads: int = 1) -> Frames:
    """The frames ``wanted`` of a shard, into an array that had other values."""
    out = np.full((len(wanted), *dims[1:]), 77, codec.format.DTYPES[dtype])
    layout = codec.ShardLayout.read(data, dims, dtype)
    codec.decode_frames(lambda offset, nbytes: data[offset : offset + nbytes], layout, wanted, out, threads)
    return out


def batched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where frames are decoded one by one."""

    def singly(*_: Any) -> None:
        pytest.fail("these frames were decoded one by one")

    monkeypatch.setattr(batch_decoder, "_decode_singly", singly)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_same_frames(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    """All frames and any of them, in one batch or many, by one thread or two."""
    frames = np.random.default_rng(0).integers(0, 200, (17, 12, 9)).astype(dtype)
    data, name = shard_of(frames), codec.dtype_name(frames)
    batched(monkeypatch)
    for batch_bytes, read_over in ((1 << 20, 1 << 15), (5 * frames[0].nbytes, 0)):
        monkeypatch.setattr(batch_decoder, "BATCH_BYTES", batch_bytes)
        monkeypatch.setattr(batch_decoder, "READ_OVER", read_over)
        monkeypatch.setattr(batch_decoder, "THREAD_BYTES", frames[0].nbytes)
        for wanted in (range(17), range(3, 8), range(0, 16, 5), [2, 3, 11, 12]):
            for threads in (1, 2):
                found = decoded(data, frames.shape, name, wanted, threads)
                np.testing.assert_array_equal(found, frames[list(wanted)])


@given(st.data())
def test_damage_is_never_taken_for_a_frame(data: st.DataObject) -> None:
    """With any byte of the frames changed: the true frames, or the error that decoding one by one has."""
    frames = np.random.default_rng(1).integers(0, 9, (6, 5, 7)).astype(np.uint8)
    whole = bytearray(shard_of(frames))
    layout = codec.ShardLayout.read(bytes(whole), frames.shape)
    first, last = int(layout.index[0, 0]), int(layout.index[-1].sum())
    place = data.draw(st.integers(first, last - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        expected: Any = codec.decode_shard(bytes(whole), frames.shape)
    except ShardError as error:
        expected = str(error)
    try:
        found: Any = decoded(bytes(whole), frames.shape, "uint8", range(6))
    except ShardError as error:
        found = str(error)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)


def test_absent_frames_and_short_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent frames are 0; a file that ends early, and a zstandard without batches, decode one by one."""
    frames = np.random.default_rng(2).integers(1, 9, (4, 5, 7)).astype(np.uint8)
    data = shard_of(frames)
    layout = codec.ShardLayout.read(data, frames.shape)
    index = layout.index.copy()
    index[2] = codec.ABSENT
    with_gap = data[: len(data) - codec.index_nbytes(4)] + codec.pack_index(index)
    expected = frames.copy()
    expected[2] = 0
    np.testing.assert_array_equal(decoded(with_gap, frames.shape, "uint8", range(4)), expected)
    end = int(layout.index[2].sum())
    out = np.zeros_like(frames)
    with pytest.raises(ShardError, match="Frame 3"):
        codec.decode_frames(lambda at, nbytes: data[at : min(at + nbytes, end)], layout, range(4), out)
    monkeypatch.setattr(batch_decoder.zstandard, "ZstdDecompressor", type("Other", (), {}))
    monkeypatch.setattr(
        batch_decoder, "iter_frames", lambda _fetch, _layout, only: [(only[0], frames[only[0]])]
    )
    np.testing.assert_array_equal(decoded(data, frames.shape, "uint8", range(4)), frames)
