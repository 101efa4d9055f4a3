"""Helpers of the streamers' tests: frames, streamers, and archives read with zarr-python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from atomstream import AsyncRHEEDStreamer, retry
from atomstream.records import StreamReport

CHUNK = 4
FPS = 2.0
"""A chunk of four frames is then 2 s long, so that ``initialize`` gives no warning."""


def noise(seed: int, n: int = CHUNK, shape: tuple[int, int] = (16, 20)) -> npt.NDArray[np.uint8]:
    """Frames (n, H, W), different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def stored(server: Any, data_id: str) -> npt.NDArray[Any]:
    """All frames of a stream's archive, as zarr-python reads them."""
    array: Any = zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")["frames"]
    return np.asarray(array[:])


def assert_arrived(server: Any, data_id: str, seeds: list[int], shape: tuple[int, int] = (16, 20)) -> None:
    """The archive holds exactly ``noise(seed)`` for each of ``seeds``, in order."""
    expected = np.concatenate([noise(seed, shape=shape) for seed in seeds])
    np.testing.assert_array_equal(stored(server, data_id), expected)


def assert_sums(report: StreamReport) -> None:
    """The counts of a report are consistent (P9: each chunk is in exactly one state)."""
    missing = sum(
        report[key] for key in ("chunks_failed", "chunks_dropped", "chunks_purged", "chunks_pending")
    )  # type: ignore[literal-required]
    assert report["chunks_not_uploaded"] == missing
    assert report["chunks_spooled"] == report["chunks_uploaded"] + missing


def make_async(url: str, key: str, **settings: Any) -> AsyncRHEEDStreamer:
    """A streamer without clock synchronisation."""
    settings.setdefault("clock_sync", False)
    settings.setdefault("spool_min_free_bytes", 0)
    return AsyncRHEEDStreamer(key, url, **settings)


async def begin(streamer: AsyncRHEEDStreamer, *indices: int) -> str:
    """A new stream with these chunks of noise pushed."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    for k in indices:
        await streamer.push(data_id, k, noise(k))
    return data_id


def all_calls(streamer: AsyncRHEEDStreamer, data_id: str) -> list[Callable[[], Awaitable[object]]]:
    """A call of each method that sends or waits, for a streamer that refuses all of them."""
    return [
        lambda: streamer.push(data_id, 1, noise(1)),
        lambda: streamer.push_frame(data_id, noise(1)[0]),
        lambda: streamer.run(data_id, [noise(1)]),
        lambda: streamer.flush(data_id),
        lambda: streamer.finalize(data_id),
        lambda: streamer.initialize(FPS, 0.0, CHUNK),
    ]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds; the limit is the timeout of the test."""
    while not condition():
        await asyncio.sleep(0.005)


async def stream_stats(streamer: AsyncRHEEDStreamer, data_id: str) -> Any:
    """One stream's part of ``stats()``."""
    return (await streamer.stats())["streams"][data_id]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between attempts to milliseconds. Other tests check the delays."""
    monkeypatch.setattr(retry, "BASE_S", 0.01)
    monkeypatch.setattr(retry, "CEILING_S", 0.1)
