"""The shard codec: decoded frames equal the encoded ones, also in other Zarr readers; damage is rejected."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atomstream import shard as codec
from atomstream.errors import ShardError
from atomstream.records import Chunk, FrameMeta, Frames, Timestamp
from tests.paths import WIRE

RECORDED = [(f"stream{s}-c{c}", key) for s, c, key in [
    (0, 0, "chunk0"), (0, 1, "chunk1"), (0, 2, "frame"), (1, 0, "chunk0"), (1, 1, "chunk1"),
]]  # fmt: skip

any_frames = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))
)


def _encode(frames: Frames, meta: FrameMeta = FrameMeta(), level: int = 1) -> bytes:  # noqa: B008  (frozen)
    made = codec.ShardEncoder(level).encode(Chunk("id", 0, frames, Timestamp(0.0), meta))
    assert made.info.nbytes == sum(map(len, made.pieces))
    return b"".join(made.pieces)


def _dtype_of(frames: Frames) -> codec.DtypeName:
    return codec.dtype_name(frames)


def _with_index(bodies: list[bytes], entries: list[tuple[int, int]]) -> bytes:
    return b"".join(bodies) + codec.pack_index(np.array(entries, dtype=np.uint64).reshape(-1, 2))


def _one_frame(body: bytes) -> bytes:
    return _with_index([body], [(0, len(body))])


def _zarr_array(folder: Path, frames: Frames) -> Any:
    import zarr

    n, height, width = frames.shape
    return zarr.create_array(
        folder, shape=frames.shape, dtype=frames.dtype, chunks=(1, height, width), shards=(n, height, width),
        fill_value=0,
    )  # fmt: skip


def _read_by_zarr(folder: Path, data: bytes, frames: Frames) -> Frames:
    array = _zarr_array(folder, frames)
    path = folder / "c" / "0" / "0" / "0"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return np.asarray(array[:])


def _read_by_tensorstore(folder: Path) -> Frames:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    return np.asarray(tensorstore.open(spec, open=True).result().read().result())


@given(any_frames, st.integers(-5, 9))
def test_any_frames_decode_equal(frames: Frames, level: int) -> None:
    """decode(encode(frames)) equals frames for any shape, dtype and level (P1: frames arrive unchanged)."""
    decoded = codec.decode_shard(_encode(frames, level=level), frames.shape, _dtype_of(frames))
    assert decoded.dtype == frames.dtype
    np.testing.assert_array_equal(decoded, frames)


@given(any_frames)
def test_digest_depends_on_the_frames_only(frames: Frames) -> None:
    """The digest is the same at each level, and changes if one pixel differs."""
    other = frames.copy()
    other.flat[0] ^= 1
    digests = [
        codec.ShardEncoder(level).encode(Chunk("id", 0, array, Timestamp(0.0))).info.digest
        for level, array in [(1, frames), (7, frames), (1, other)]
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("name", "key"), RECORDED)
def test_recorded_shards_decode_equal(name: str, key: str, tmp_path: Path) -> None:
    """Recorded shards of the hosted service's client decode equal with our decoder, zarr-python and tensorstore."""
    pushed = np.load(WIRE / "frames.npz")[key]
    frames = pushed if pushed.ndim == 3 else pushed[np.newaxis]
    data = (WIRE / "shards" / f"{name}.shard").read_bytes()
    np.testing.assert_array_equal(codec.decode_shard(data, frames.shape), frames)
    np.testing.assert_array_equal(_read_by_zarr(tmp_path, data, frames), frames)
    np.testing.assert_array_equal(_read_by_tensorstore(tmp_path), frames)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_readers_ignore_the_meta(dtype: type, tmp_path: Path) -> None:
    """zarr-python and tensorstore read our shards equal, although per-frame data is at the start."""
    frames = np.random.default_rng(1).integers(0, 255, (5, 7, 9)).astype(dtype)
    data = _encode(frames, FrameMeta(ids=(1, 2, 3, 5, 6)))
    np.testing.assert_array_equal(_read_by_zarr(tmp_path, data, frames), frames)
    np.testing.assert_array_equal(_read_by_tensorstore(tmp_path), frames)


def test_zarr_shards_decode_equal(tmp_path: Path) -> None:
    """A shard of zarr-python decodes equal. One frame is black, so zarr omits it."""
    frames = np.random.default_rng(2).integers(1, 60000, (4, 5, 6)).astype(np.uint16)
    frames[2] = 0
    _zarr_array(tmp_path, frames)[:] = frames
    data = (tmp_path / "c" / "0" / "0" / "0").read_bytes()
    present = [k for k, _ in codec.iter_frames(data, codec.ShardLayout.read(data, (4, 5, 6), "uint16"))]
    assert present == [0, 1, 3]
    np.testing.assert_array_equal(codec.decode_shard(data, (4, 5, 6), "uint16"), frames)


@given(st.data(), st.integers(1, 5))
def test_meta_decodes_equal(data: st.DataObject, n: int) -> None:
    """Times, ids and angles, each present or not, are equal after encoding and decoding."""

    def column(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.none() | st.tuples(*[values] * n)

    meta = FrameMeta(
        times_ms=data.draw(column(st.floats(allow_nan=False, allow_infinity=False))),
        ids=data.draw(column(st.integers(-(2**63), 2**63 - 1))),
        angles_deg=data.draw(column(st.floats(0, 360))),
    )
    encoded = _encode(np.ones((n, 2, 2), np.uint8), meta)
    assert codec.ShardLayout.read(encoded, (n, 2, 2)).meta == meta


@given(any_frames.filter(lambda frames: len(frames) > 1), st.data())
def test_only_the_selected_frames_are_read(frames: Frames, data: st.DataObject) -> None:
    """`only` decodes these frames and fetches nothing of the others."""
    k = data.draw(st.integers(0, len(frames) - 1))
    encoded = _encode(frames)
    fetched: list[tuple[int, int]] = []

    def fetch(offset: int, nbytes: int) -> bytes:
        fetched.append((offset, nbytes))
        return encoded[offset : offset + nbytes]

    layout = codec.ShardLayout.fetch(fetch, len(encoded), frames.shape, _dtype_of(frames))
    fetched.clear()
    ((found, frame),) = codec.iter_frames(fetch, layout, range(k, k + 1))
    assert found == k
    assert fetched == [tuple(layout.index[k].tolist())]
    np.testing.assert_array_equal(frame, frames[k])


def test_padded_index_is_read_by_its_slots() -> None:
    """A short chunk with an index that an archive has padded decodes with `slots`."""
    frames = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = _encode(frames)
    body = data[: len(data) - codec.index_nbytes(2)]
    index = codec.parse_index(data[len(body) :], 2, len(body))
    stored = body + codec.pack_index(codec.pad_index(index, 5))
    layout = codec.ShardLayout.fetch(lambda o, n: stored[o : o + n], len(stored), (2, 3, 4), slots=5)
    assert [k for k, _ in codec.iter_frames(stored, layout)] == [0, 1]


@given(any_frames, st.data())
def test_changed_bytes_are_detected(frames: Frames, data: st.DataObject) -> None:
    """A shard with one changed byte is rejected, or decodes to the same frames."""
    encoded = bytearray(_encode(frames))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        decoded = codec.decode_shard(bytes(encoded), frames.shape, _dtype_of(frames))
    except ShardError:
        return
    np.testing.assert_array_equal(decoded, frames)


@given(st.binary(max_size=200), st.integers(1, 4))
def test_random_bytes_are_rejected(noise: bytes, n: int) -> None:
    """Bytes that are not a shard raise ShardError and no other error."""
    with pytest.raises(ShardError):
        codec.decode_shard(noise, (n, 2, 2))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=4))
def test_index_entries_stay_inside(entries: list[tuple[int, int]]) -> None:
    """An index with a correct checksum but arbitrary entries never refers to bytes outside of the body."""
    body = b"\x00" * 64
    try:
        index = codec.parse_index(
            codec.pack_index(np.array(entries, dtype=np.uint64)), len(entries), len(body)
        )
    except ShardError:
        return
    absent = index[:, 0] == codec.ABSENT
    assert all(offset + nbytes <= len(body) for offset, nbytes in index[~absent].tolist())


def test_index_of_another_length_is_rejected() -> None:
    """A shard with more or fewer index entries than frames is rejected."""
    encoded = _encode(np.ones((3, 2, 2), np.uint8))
    for n in (1, 2, 4, 10_000):
        with pytest.raises(ShardError):
            codec.decode_shard(encoded, (n, 2, 2))


def _lying_frame(declared: int, content: bytes) -> bytes:
    """A zstd frame of one raw block that declares ``declared`` bytes (RFC 8878, 3.1.1)."""
    block = struct.pack("<I", len(content) << 3 | 1)[:3]
    return b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", declared) + block + content


HOSTILE = {
    "declares 1 TiB": _lying_frame(1 << 40, bytes(4)),
    "declares less": _lying_frame(3, bytes(4)),
    "declares its shape, holds less": _lying_frame(4, bytes(3)),
    "declares its shape, holds more": _lying_frame(4, bytes(64)),
    "another shape": zstandard.ZstdCompressor().compress(bytes(5)),
    "a bomb of known size": zstandard.ZstdCompressor().compress(bytes(1 << 24)),
    "a bomb of unknown size": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24)),
    "a huge window": bytes.fromhex("28b52ffd00ff010000"),
    "skippable of its shape": struct.pack("<II", 0x184D2A50, 4) + bytes(4),
    "two frames in one": zstandard.ZstdCompressor().compress(bytes(4)) * 2,
    "empty blocks without end": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4))[:-3]
    + bytes(3) * 2000,
    "not zstd": b"RHEED" * 4,
    "cut short": zstandard.ZstdCompressor().compress(bytes(range(4)))[:-1],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_frames_are_rejected(what: str) -> None:
    """Wrong sizes, decompression bombs and foreign frames raise a ShardError that names the frame."""
    with pytest.raises(ShardError, match="Frame 0"):
        codec.decode_shard(_one_frame(HOSTILE[what]), (1, 2, 2))


HOSTILE_META = {
    "a list": msgpack.packb([1.0, 2.0]),
    "wrong length": msgpack.packb({"t": [1.0]}),
    "text for numbers": msgpack.packb({"t": ["1", "2"]}),
    "not finite": msgpack.packb({"t": [float("nan"), 1.0]}),
    "an infinite id": msgpack.packb({"i": [float("inf"), 1]}),
    "an id too large": msgpack.packb({"i": [2**64 - 1, 1]}),
    "booleans": msgpack.packb({"a": [True, False]}),
    "deeply nested": b"\x91" * 900,
    "array that lies": b"\x81\xa1t\xdd\xff\xff\xff\xff",
    "not msgpack": b"\xc1\xc1",
}


@pytest.mark.parametrize("what", HOSTILE_META)
def test_hostile_meta_is_rejected(what: str) -> None:
    """Malformed per-frame data raises a ShardError."""
    front = struct.pack("<II", codec.META_MAGIC, len(HOSTILE_META[what])) + HOSTILE_META[what]
    absent = (codec.ABSENT, codec.ABSENT)
    with pytest.raises(ShardError, match="per-frame"):
        codec.ShardLayout.read(_with_index([front], [absent, absent]), (2, 2, 2))


@pytest.mark.parametrize("size", [10, 2**31, 2**32 - 1])
def test_meta_length_is_bounded(size: int) -> None:
    """Per-frame data that declares more bytes than exist raises a ShardError."""
    data = _with_index([struct.pack("<II", codec.META_MAGIC, size)], [(codec.ABSENT, codec.ABSENT)])
    with pytest.raises(ShardError, match="impossible length"):
        codec.ShardLayout.read(data, (1, 2, 2))
