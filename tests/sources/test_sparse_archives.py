"""An archive with holes of any length is read in constant memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from atomstream.sources import open_source

SIZE = 4


def archive(path: Path, chunks: dict[int, int]) -> Path:
    """An archive as the server writes it, with these numbers of frames by chunk index; each frame has its number."""
    group: Any = zarr.open_group(path, mode="w")
    length = max(index * SIZE + count for index, count in chunks.items())
    frames = group.create_array(
        "frames", shape=(length, 2, 2), dtype="uint8", chunks=(1, 2, 2), shards=(SIZE, 2, 2), fill_value=0
    )
    time = group.create_array("time", shape=(length,), dtype="f8", chunks=(16384,), fill_value=np.nan)
    counts = group.create_array(
        "chunk_frames", shape=(-(-length // SIZE),), dtype="i4", chunks=(16384,), fill_value=0
    )
    time.attrs["units"] = "s"
    for number, (index, count) in enumerate(sorted(chunks.items())):
        start = index * SIZE
        frames[start : start + count] = np.full((count, 2, 2), number + 1, np.uint8)
        time[start : start + count] = np.arange(start, start + count) / 10.0
        counts[index] = count
    return path


@pytest.mark.parametrize(
    "chunks",
    [
        {0: 4, 1: 4, 3500: 4},
        {0: 1, 1: 1, 2: 1},
        {0: 4, 1: 2, 2: 4, 2_500_000: 3},
        {7: 4},
    ],
)
def test_holes_are_not_read(tmp_path: Path, chunks: dict[int, int]) -> None:
    """All frames come with their times, and no more than a chunk of rows is ever read at once, up to 10^7 rows away."""
    source: Any = open_source(archive(tmp_path / "frames.zarr", chunks))
    read, most = source._read, []
    source._read = lambda part: (most.append(part.stop - part.start), read(part))[1]
    found = list(source.chunks(3))
    numbers = [index * SIZE + k for index, count in sorted(chunks.items()) for k in range(count)]
    assert source.n_frames == len(numbers)
    times = np.concatenate([chunk.times_s for chunk in found])
    np.testing.assert_allclose(times, (np.array(numbers) - numbers[0]) / 10.0, atol=1e-9)
    values = np.concatenate([chunk.frames[:, 0, 0] for chunk in found]).tolist()
    assert values == [
        number + 1 for number, (_, count) in enumerate(sorted(chunks.items())) for _ in range(count)
    ]
    assert max(most) <= 3


def test_a_frame_without_a_time_is_a_gap(tmp_path: Path) -> None:
    """A damaged time column costs only its frames."""
    path = archive(tmp_path / "frames.zarr", {0: 4, 5: 4})
    zarr.open_group(path, mode="a")["time"][1:3] = np.nan  # type: ignore[index]
    source = open_source(path)
    assert source.n_frames == 6
    assert sum(len(chunk.frames) for chunk in source.chunks(60)) == 6
