"""Arrays of any memory layout arrive equal; other arrays are refused with a clear error and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from atomstream import RHEEDStreamer
from tests.live_server import ThreadedServer
from tests.streaming.stream_helpers import CHUNK, FPS, noise, stored

Array = npt.NDArray[Any]
EXAMPLES = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def server(memory_path: Path, serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread(data_dir=memory_path / "server")


@pytest.fixture
def streamer(server: ThreadedServer, memory_path: Path) -> Iterator[RHEEDStreamer]:
    with RHEEDStreamer(
        server.api_key, server.url, spool_dir=memory_path / "spool", clock_sync=False, spool_min_free_bytes=0
    ) as made:
        yield made


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda a: a,
    "Fortran": np.asfortranarray,
    "time reversed": lambda a: a[::-1],
    "upside down": lambda a: a[..., ::-1, :],
    "mirrored": lambda a: a[..., ::-1],
    "transposed": lambda a: a.swapaxes(-1, -2),
    "time last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "cut out": lambda a: np.pad(a, 3)[(slice(3, -3),) * a.ndim],
    "broadcast": lambda a: np.broadcast_to(a[..., :1, :], a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "a field of records": lambda a: np.rec.fromarrays([a, a], names="gray,mask")["gray"],
    "a memory view of unaligned bytes": lambda a: np.frombuffer(
        b"x" + a.tobytes(), a.dtype, offset=1
    ).reshape(a.shape),
}


@st.composite
def frame_arrays(draw: st.DrawFn, dtype: str) -> Array:
    """Arrays (N, H, W) or (H, W) in all memory layouts."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=CHUNK))
    array = draw(arrays(np.dtype(dtype), shape))
    for name in draw(st.lists(st.sampled_from(sorted(LAYOUTS)), max_size=2)):
        array = LAYOUTS[name](array)
    return array


def push_one(streamer: RHEEDStreamer, frames: Array, **more: Any) -> str:
    """Push one chunk in a new stream."""
    data_id = streamer.initialize(FPS, 0.0, CHUNK)
    streamer.push(data_id, 0, frames, **more)
    assert streamer.finalize(data_id)["chunks_uploaded"] == 1
    return data_id


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_any_layout_arrives_equal(server: ThreadedServer, streamer: RHEEDStreamer, dtype: str) -> None:
    """The archive equals the array for any strides, order, byte order and owner, copied or handed over."""

    @EXAMPLES
    @given(frames=frame_arrays(dtype), copy=st.booleans())
    def check(frames: Array, copy: bool) -> None:
        chunk_size = len(frames) if frames.ndim == 3 else 1
        data_id = streamer.initialize(chunk_size / 2.0, 0.0, chunk_size)
        for k in range(2):
            streamer.push(data_id, k, frames, copy=copy)
        streamer.finalize(data_id)
        found, expected = (
            stored(server, data_id),
            np.concatenate(2 * [frames.reshape(-1, *frames.shape[-2:])]),
        )
        assert found.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)

    check()


def test_each_layout_through_each_push_method(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """push, run and push_frame store the same frames of the same array, for each layout."""
    pushed, ran, framed = (streamer.initialize(FPS, 0.0, CHUNK) for _ in range(3))
    laid_out = [layout(noise(k, shape=(5, 5))) for k, layout in enumerate(LAYOUTS.values())]
    for k, frames in enumerate(laid_out):
        streamer.push(pushed, k, frames)
        for frame in frames:
            streamer.push_frame(framed, frame)
    streamer.run(ran, laid_out)
    for data_id in (pushed, ran, framed):
        streamer.finalize(data_id)
        np.testing.assert_array_equal(stored(server, data_id), np.concatenate(laid_out))


def test_a_black_chunk_is_data(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """An all-zero chunk is stored and counted like any other chunk."""
    data_id = streamer.initialize(FPS, 0.0, CHUNK)
    for k, frames in enumerate([np.zeros((CHUNK, 16, 20), np.uint8), noise(1)]):
        streamer.push(data_id, k, frames)
    assert streamer.finalize(data_id)["lost"] == []
    np.testing.assert_array_equal(stored(server, data_id)[:CHUNK], 0)
    assert server.archive(data_id).chunks() == {0: CHUNK, 1: CHUNK}


def test_a_memory_map_is_an_array_too(
    server: ThreadedServer, streamer: RHEEDStreamer, tmp_path: Path
) -> None:
    """A memory map of a .npy file of recorded frames may be pushed."""
    np.save(tmp_path / "frames.npy", noise(3))
    data_id = push_one(streamer, np.load(tmp_path / "frames.npy", mmap_mode="r"), copy=False)
    np.testing.assert_array_equal(stored(server, data_id), noise(3))


class Camera:
    """The buffer class of a camera SDK, which can only be converted to an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return noise(4)


def test_objects_with_array_method_are_accepted(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """Objects with ``__array__`` are converted and accepted."""
    np.testing.assert_array_equal(stored(server, push_one(streamer, Camera())), noise(4))  # type: ignore[arg-type]
