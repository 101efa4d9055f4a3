"""Invalid frames, indices, times and streams are refused with a clear error, and nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.protocol import MAX_SHARD_BYTES
from atomstream.sources import to_uint8
from atomstream.testing import MemoryService
from tests.streaming.scripted_faults import KEY
from tests.streaming.stream_helpers import CHUNK, FPS, make_async, noise

WRONG_KIND: dict[str, tuple[Any, str]] = {
    "int8": (noise(0).view(np.int8), r"must be uint8, not int8.*to_uint8"),
    "bool": (noise(0) > 9, r"must be uint8, not bool.*to_uint8"),
    "float32": (noise(0).astype(np.float32), r"must be uint8, not float32.*to_uint8"),
    "float64": (noise(0) / 255, r"must be uint8, not float64.*to_uint8"),
    "int64": (noise(0).astype(np.int64), r"must be uint8, not int64.*to_uint8"),
    "uint32": (noise(0).astype(np.uint32), r"must be uint8, not uint32.*to_uint8"),
    "complex": (noise(0).astype(complex), r"must be uint8, not complex128"),
    "objects": (np.array([[None]]), r"must be uint8, not object"),
    "text": (np.array([["a"]]), r"must be uint8, not <U1"),
    "records": (np.zeros((2, 2, 2), "u1,u1"), r"must be uint8, not \["),
    "dates": (np.zeros((2, 2), "M8[s]"), r"must be uint8, not datetime64"),
    "masked": (np.ma.masked_equal(noise(0), 0), r"masked array.*filled\(0\)"),
    "list": ([noise(0)[0], noise(0)[1]], r"numpy array of uint8, not list.*np\.stack"),
    "nested lists": ([[1, 2], [3, 4]], r"numpy array of uint8, not list"),
    "None": (None, r"numpy array of uint8, not NoneType"),
    "bytes": (b"1234", r"numpy array of uint8, not bytes"),
    "str": ("frames.npy", r"numpy array of uint8, not str"),
    "a number": (7, r"numpy array of uint8, not int"),
}
WRONG_SHAPE: dict[str, tuple[Any, str]] = {
    "colour": (np.zeros((2, 4, 4, 3), np.uint8), r"\(N, H, W\) or \(H, W\), not \(2, 4, 4, 3\).*colour"),
    "a colour picture": (np.zeros((24, 32, 3), np.uint8), r"not \(24, 32, 3\): these are colours"),
    "grey with opacity": (np.zeros((24, 32, 2), np.uint8), r"two samples per pixel"),
    "a picture with opacity": (np.zeros((24, 32, 4), np.uint8), r"not \(24, 32, 4\): these are colours"),
    "a row": (np.zeros(16, np.uint8), r"\(N, H, W\) or \(H, W\), not \(16,\)"),
    "a scalar": (np.uint8(3), r"\(N, H, W\) or \(H, W\), not \(\)"),
    "no frames": (np.zeros((0, 4, 4), np.uint8), r"\(0, 4, 4\) have no pixels"),
    "no rows": (np.zeros((2, 0, 4), np.uint8), r"\(2, 0, 4\) have no pixels"),
    "no columns": (np.zeros((4, 0), np.uint8), r"\(4, 0\) have no pixels"),
}
REFUSED = {
    **{name: (TypeError, *what) for name, what in WRONG_KIND.items()},
    **{name: (ValueError, *what) for name, what in WRONG_SHAPE.items()},
}


@pytest.fixture
async def opened(service: MemoryService) -> AsyncIterator[tuple[AsyncRHEEDStreamer, str]]:
    """A streamer with one stream; at the end, the stream still accepts frames and has lost none."""
    async with make_async(service.url, KEY) as made:
        data_id = await made.initialize(FPS, 0.0, CHUNK)
        yield made, data_id
        assert [one.method for one in service.requests if one.method == "PUT"] == []
        await made.push(data_id, 0, noise(5))
        report = await made.finalize(data_id)
        assert (report["chunks_spooled"], report["lost"]) == (1, [])
        np.testing.assert_array_equal(service.chunk(data_id, 0), noise(5))


@pytest.mark.parametrize("name", REFUSED)
async def test_invalid_frames_are_refused_by_each_push_method(
    opened: tuple[AsyncRHEEDStreamer, str], name: str
) -> None:
    """A wrong type or shape is an error with the value and what is allowed; nothing is sent."""
    streamer, data_id = opened
    kind, wrong, sentence = REFUSED[name]
    with pytest.raises(kind, match=sentence):
        await streamer.push(data_id, 0, wrong)
    with pytest.raises(kind, match=sentence):
        await streamer.push_frame(data_id, wrong)
    with pytest.raises(kind, match=sentence):
        await streamer.run(data_id, [wrong])


async def test_sixteen_bits_are_refused_by_a_server_that_is_not_ours(
    opened: tuple[AsyncRHEEDStreamer, str],
) -> None:
    """uint16 for a service that did not announce itself as ours is a TypeError that names to_uint8."""
    streamer, data_id = opened
    wide = noise(0).astype(np.uint16)
    with pytest.raises(TypeError, match=r"uint16.*atomstream\.sources\.to_uint8"):
        await streamer.push(data_id, 0, wide)
    with pytest.raises(TypeError, match=r"uint16.*atomstream\.sources\.to_uint8"):
        await streamer.push_frame(data_id, wide[0])
    assert to_uint8(wide, 0, 255).dtype == np.uint8


async def test_more_frames_than_a_chunk_are_refused(opened: tuple[AsyncRHEEDStreamer, str]) -> None:
    """More than chunk_size frames are a ValueError that recommends run(), which splits them."""
    streamer, data_id = opened
    with pytest.raises(ValueError, match=r"5 frames are more than the stream's chunk_size of 4.*run\(\)"):
        await streamer.push(data_id, 0, noise(0, CHUNK + 1))


async def test_push_frame_accepts_one_frame(opened: tuple[AsyncRHEEDStreamer, str]) -> None:
    """A whole chunk in push_frame is a ValueError that recommends push."""
    streamer, data_id = opened
    with pytest.raises(
        ValueError, match=r"one frame of shape \(H, W\), not \(4, 16, 20\); push takes chunks"
    ):
        await streamer.push_frame(data_id, noise(0))


async def test_a_chunk_that_no_server_accepts_is_refused(opened: tuple[AsyncRHEEDStreamer, str]) -> None:
    """push, run and push_frame refuse frames that are too large for any upload, before they use memory."""
    streamer, data_id = opened
    side = int((MAX_SHARD_BYTES / CHUNK) ** 0.5) + 1
    huge = np.broadcast_to(np.uint8(0), (CHUNK, side, side))
    with pytest.raises(ValueError, match="chunk_size"):
        await streamer.push(data_id, 0, huge)
    with pytest.raises(ValueError, match="chunk_size"):
        await streamer.run(data_id, [huge])
    with pytest.raises(ValueError, match="chunk_size"):
        await streamer.push_frame(data_id, huge[0])


async def test_one_sample_per_pixel_is_grey(service: MemoryService) -> None:
    """A picture (H, W, 1), as vmbpy gives it, is refused where it could be H frames, and else a frame."""
    frames = noise(0, shape=(16, 20))
    async with make_async(service.url, KEY) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        with pytest.raises(ValueError, match=r"\(16, 20, 1\): this is one picture.*frame\[\.\.\., 0\]"):
            await streamer.push(data_id, 0, frames[0][..., None])
        with pytest.raises(ValueError, match=r"\(16, 20, 1\): this is one picture"):
            await streamer.run(data_id, [frames[0][..., None]])
        await streamer.push(data_id, 0, frames[..., None])
        for frame in frames:
            await streamer.push_frame(data_id, frame[..., None])
        await streamer.finalize(data_id)
    for chunk in (0, 1):
        np.testing.assert_array_equal(service.chunk(data_id, chunk), frames)


async def test_another_format_within_a_stream_is_refused(service: MemoryService) -> None:
    """The first chunk fixes height and width; the error has both formats, and the stream continues."""
    async with make_async(service.url, KEY) as streamer:
        data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await streamer.push(data_id, 0, noise(0))
        other = noise(1, shape=(20, 16))
        for push in (
            lambda: streamer.push(data_id, 1, other),
            lambda: streamer.push_frame(data_id, other[0]),
            lambda: streamer.run(data_id, [other]),
        ):
            with pytest.raises(ValueError, match=r"frames of 16x20 uint8.*got 20x16 uint8"):
                await push()
        await streamer.push(data_id, 1, noise(1))
        assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        (-1, ValueError),
        (10_000_001, ValueError),
        (1.0, TypeError),
        ("0", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
async def test_indices_are_whole_numbers(
    opened: tuple[AsyncRHEEDStreamer, str], index: Any, kind: type[Exception]
) -> None:
    """An invalid chunk index is refused with its value."""
    streamer, data_id = opened
    with pytest.raises(kind, match="chunk_idx"):
        await streamer.push(data_id, index, noise(0))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0, 1.7e15, "2026-01-01", True])
async def test_capture_times_are_milliseconds(opened: tuple[AsyncRHEEDStreamer, str], wrong: Any) -> None:
    """An impossible capture time (microseconds, text, NaN) is refused with its name."""
    streamer, data_id = opened
    with pytest.raises((ValueError, TypeError), match="capture_start_ms_utc"):
        await streamer.push(data_id, 0, noise(0), wrong)
    with pytest.raises((ValueError, TypeError), match="capture_ms_utc"):
        await streamer.push_frame(data_id, noise(0)[0], wrong)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frame_times_ms": [1.0]}, "frame_times_ms has 1 values for 4 frames"),
        ({"frame_times_ms": [1.0, 2.0, float("nan"), 4.0]}, "frame_times_ms"),
        ({"frame_ids": [1, 2, 3]}, "frame_ids has 3 values for 4 frames"),
        ({"frame_ids": [1, 2, 3, 4.5]}, "frame_id"),
        ({"frame_ids": [1, 2, 3, 2**64]}, "frame_id"),
        ({"angles_deg": [0.0, 1.0, 2.0, float("inf")]}, "angle_deg"),
        ({"angles_deg": "0123"}, "angle_deg"),
        ({"angles_deg": 5.0}, "angles_deg"),
    ],
)
async def test_per_frame_data_has_one_entry_per_frame(
    opened: tuple[AsyncRHEEDStreamer, str], arguments: dict[str, Any], sentence: str
) -> None:
    """Per-frame times, ids and angles of a wrong length or type are refused with their name."""
    streamer, data_id = opened
    with pytest.raises((ValueError, TypeError), match=sentence):
        await streamer.push(data_id, 0, noise(0), **arguments)


BAD_NUMBERS = [float("nan"), float("inf"), -float("inf"), -1.0, "120", None, True, [120.0]]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(
            (name, wrong)
            for name in ("fps", "rotations_per_min", "chunk_size")
            for wrong in (*BAD_NUMBERS, 1e9)
        ),
        ("fps", 0.0),
        ("chunk_size", 0),
    ],
)
async def test_invalid_stream_parameters_are_refused(service: MemoryService, name: str, wrong: Any) -> None:
    """Invalid fps, rpm and chunk_size are refused with their name, and no request is sent."""
    arguments = {"fps": 120.0, "rotations_per_min": 15.0, "chunk_size": 240, name: wrong}
    async with make_async(service.url, KEY) as streamer:
        with pytest.raises((ValueError, TypeError), match=name):
            await streamer.initialize(**arguments)
    assert service.requests == []


async def test_a_chunk_size_is_whole(service: MemoryService) -> None:
    """240.0 is refused, whole numbers of numpy are accepted."""
    async with make_async(service.url, KEY) as streamer:
        with pytest.raises(TypeError, match="chunk_size must be a whole number, not float"):
            await streamer.initialize(120.0, 0.0, 240.0)  # type: ignore[arg-type]
        await streamer.initialize(np.float32(120.0), np.int16(0), np.uint16(240))  # type: ignore[arg-type]


async def test_short_chunks_cause_a_warning(service: MemoryService) -> None:
    """A chunk shorter than 2 s causes a warning that has a sufficient size."""
    async with make_async(service.url, KEY) as streamer:
        with pytest.warns(UserWarning, match=r"chunk_size=10 is 0\.0833 s.*chunk_size=240"):
            await streamer.initialize(120.0, 0.0, 10)
