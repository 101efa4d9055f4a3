"""Meaningless images and odd streams: no crash, and no invented number."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from atomstream.sources import GrowthSpec, Simulator
from tests.live_helpers import CHUNK, FPS, RATE, SPEC, analysed, batches, frame_numbers, growth, rate_of
from tests.live_server import Serve
from tests.wire_client import WireClient


def uniform(
    level: int, n: int = 60, shape: tuple[int, int] = (48, 64)
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames of one grey level."""
    return np.full((n, *shape), level, np.uint8)


def noise(shape: tuple[int, int], n: int = 60) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames of noise."""
    return np.random.default_rng(1).integers(0, 60, (n, *shape), dtype=np.uint8)


async def results_of(
    serve: Serve, frames: np.ndarray[Any, Any], chunk: int = 30, fps: float = FPS, rpm: float = 0.0
) -> list[dict[str, Any]]:
    """The batches of a whole stream of these frames."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=fps, rotations_per_min=rpm)
        found = batches(await analysed(client, data_id, frames, chunk=chunk, fps=fps))
        status, analysis = await client.ask("GET", f"/rheed/stream/{data_id}/analysis")
        assert (status, analysis["status"]) == (200, "ended")
        assert (await client.ask("GET", f"/rheed/timeseries/{data_id}/"))[0] == 200
    assert frame_numbers(found) == list(range(len(frames)))
    return found


@pytest.mark.parametrize(
    "frames",
    [
        uniform(0),
        uniform(128),
        uniform(255),
        noise((8, 8)),
        uniform(255, shape=(8, 8)),
        noise((1, 1)),
        noise((48, 64)),
    ],
    ids=["black", "constant", "saturated", "8x8 noise", "8x8 saturated", "1x1", "noise"],
)
async def test_images_without_a_pattern(serve: Serve, frames: np.ndarray[Any, Any]) -> None:
    """Images without a pattern have no growth rate and no spacing, with the reason."""
    last = (await results_of(serve, frames))[-1]
    for name in ("growth_rate_ml_s", "lattice_spacing"):
        assert last["values"][name]["value"] is None
        assert last["values"][name]["why"]


@pytest.mark.slow
async def test_huge_frames(serve: Serve) -> None:
    """Frames of four megapixels are analysed like others."""
    frames = Simulator(GrowthSpec(2048, 2048, 10.0, 1)).frames(0, 6)
    found = await results_of(serve, np.asarray(frames), chunk=3, fps=10.0)
    assert found[-1]["values"]["growth_rate_ml_s"]["value"] is None


async def test_chunks_of_one_frame(serve: Serve) -> None:
    """With chunks of one frame, each frame has its results once."""
    await results_of(serve, growth()[:24], chunk=1)


@pytest.mark.slow
async def test_wrong_rotation_speed(serve: Serve) -> None:
    """A rotation that differs by 10 % from the given speed does not cause a wrong growth rate."""
    turning = dataclasses.replace(SPEC, rpm=13.2)
    rate = rate_of((await results_of(serve, growth(600, turning), chunk=CHUNK, rpm=12.0))[-1])
    assert rate["why"] or abs(rate["value"] / RATE - 1.0) < 0.05


async def test_a_stream_of_one_short_chunk(serve: Serve) -> None:
    """A stream of a few frames has their intensities and no rate."""
    found = await results_of(serve, growth()[:7], chunk=CHUNK)
    assert found[-1]["values"]["growth_rate_ml_s"]["value"] is None


async def test_a_stream_without_frames(serve: Serve) -> None:
    """The analysis of a stream without frames ends too."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        messages = await analysed(client, data_id, growth()[:0])
        assert messages[-1]["type"] == "end"


async def test_sixteen_bits(serve: Serve) -> None:
    """The growth of a 16-bit camera is analysed like that of an 8-bit one."""
    wide = growth().astype(np.uint16) * 16
    rate = rate_of((await results_of(serve, wide, chunk=CHUNK))[-1])
    assert abs(rate["value"] - RATE) < 3 * rate["sigma"] + 0.002
