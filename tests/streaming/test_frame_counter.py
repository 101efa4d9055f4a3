"""Capture times in the archive of chunks whose frame counter shows missing frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from atomstream.service.clock import ReferenceClock
from tests.fake_clock import Clock
from tests.live_server import Serve
from tests.streaming.stream_helpers import make_async, noise

FPS = 10.0
CHUNK = 5
START_S = 1_735_689_600.0
FAR = 5_000_000_000


async def stored_places(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, chunks: list[tuple[list[int], float]], fps: float = FPS
) -> npt.NDArray[np.float64]:
    """Push chunks of these counters, each at that time in frames; return the column ``time`` in frames."""
    server, clock = await serve(), Clock()
    monkeypatch.setattr(ReferenceClock, "now_ms", lambda self: (1000.0 * (START_S + clock.now), None, None))
    async with make_async(server.url, server.api_key) as streamer:
        with pytest.warns(UserWarning, match="chunk_size"):
            data_id = await streamer.initialize(fps, 0.0, CHUNK)
        for index, (ids, pushed_at) in enumerate(chunks):
            clock.now = pushed_at / fps
            await streamer.push(data_id, index, noise(index, CHUNK), frame_ids=ids)
            await streamer.flush(data_id)  # the zero of the times is then the first frame
        await streamer.finalize(data_id)
    column = zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")["time"]
    return np.asarray(column[:]) * fps  # type: ignore[index]


async def test_times_follow_the_counter_over_the_border_of_chunks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera drops frames within both chunks and between them: each frame is stored at its own time."""
    first, second = [0, 1, 2, 6, 7], [9, 13, 14, 15, 16]
    times = await stored_places(serve, monkeypatch, [(first, 8), (second, 17)])
    assert times == pytest.approx(np.array(first + second), abs=0.011)  # times travel in whole ms


@pytest.mark.parametrize(
    ("ids", "places"),
    [
        ([1, 2, FAR, FAR + 1, FAR + 2], [0, 1, 2, 3, 4]),
        ([1, 2, 4, FAR, FAR + 2], [0, 1, 3, 4, 6]),
        ([50, 51, 0, 1, 2], [0, 1, 2, 3, 4]),
        ([7, 7, 8, 9, 10], [0, 1, 2, 3, 4]),
        ([-1, -1, -1, -1, -1], [0, 1, 2, 3, 4]),
        ([4, -1, -1, 9, 10], [0, 1, 2, 5, 6]),
        ([-(2**63), -1, 0, 5, 2**63 - 1], [0, 1, 2, 7, 8]),
    ],
)
async def test_a_restart_of_the_counter_moves_no_frame(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ids: list[int], places: list[int]
) -> None:
    """A step back or by years is one frame; the chunk ends when it was pushed, and the next one follows it."""
    end = places[-1] + 1
    times = await stored_places(serve, monkeypatch, [(ids, end), ([20, 21, 22, 23, 24], end + CHUNK)])
    assert times == pytest.approx(np.array([*places, *range(end, end + CHUNK)]), abs=0.011)
