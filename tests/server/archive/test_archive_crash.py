"""SIGKILL at any moment loses no chunk that was answered with 200."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from atomstream.server.archive.stream_archive import StreamArchive
from tests.cells import grid
from tests.paths import REPO
from tests.server.archive.archive_helpers import commit, frames_of, read_zarr

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")
HERE = Path(__file__).parent


def _script(folder: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "archive_crash.py"), str(folder), what],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )


def _assert_readable(folder: Path, answered: list[int]) -> None:
    """Assert that each acknowledged chunk reads equal in zarr-python, through the group and as an array."""
    group = zarr.open_group(folder / "frames.zarr", mode="r")
    alone = zarr.open_array(folder / "frames.zarr" / "frames", mode="r")
    for index in answered:
        for array in (group["frames"], alone):
            np.testing.assert_array_equal(array[4 * index : 4 * index + 4], frames_of(index))
    times = np.asarray(group["time"][:])
    assert np.isfinite(times[[4 * index + k for index in answered for k in range(4)]]).all()


def _assert_whole(archive: StreamArchive) -> None:
    """Assert that the archive's index, its files, zarr-python and xarray agree."""
    chunks = archive.chunks()
    frames, counts = read_zarr(archive.folder), read_zarr(archive.folder, "chunk_frames")
    assert len(frames) == archive.n_frames() == 4 * len(counts)
    assert {index: n for index, n in enumerate(counts.tolist()) if n} == chunks
    for index in range(len(counts)):
        expected = frames_of(index) if index in chunks else 0 * frames_of(index)
        np.testing.assert_array_equal(frames[4 * index : 4 * index + 4], expected)
        seconds = read_zarr(archive.folder, "time")[4 * index : 4 * index + 4]
        assert np.isfinite(seconds).all() == (index in chunks)
    with xr.open_zarr(archive.folder / "frames.zarr", consolidated=False) as dataset:
        assert dataset.sizes["time"] == len(frames)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_at_every_step(memory_path: Path) -> None:
    """Killed before each fsync and after each rename of two commits, the stream keeps all acknowledged chunks."""
    answered: dict[str, list[int]] = defaultdict(list)
    ends: dict[str, str] = {}
    with _script(memory_path, "steps") as process:
        assert process.stdout is not None
        for line in process.stdout:
            place, word = line.split()
            if word.isdecimal():
                answered[place].append(int(word))
            else:
                ends[place] = word
    assert process.returncode == 0
    assert list(ends.values()).count("died") == len(ends) - 2 > 40
    seen = set()
    for place in ends:
        folder = Path(place) / "one"
        left = (_content(folder), *answered[place])
        if left in seen:  # several fsyncs in a row leave the same files
            continue
        seen.add(left)
        if answered[place]:
            _assert_readable(folder, answered[place])
        archive = StreamArchive.open(folder)
        assert archive.chunks().keys() >= set(answered[place])
        repeats = [commit(archive, index).repeated for index in range(2)]
        assert all(repeats[index] for index in answered[place])
        archive.finish()  # the documents of the columns, which may be half a second older than the group's
        _assert_whole(archive)
    assert len(seen) > 20


def _content(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """All files of a folder, with their bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path.relative_to(folder)), path.read_bytes()) for path in files)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", grid(range(6), always=[0, 1]))
def test_kill_during_parallel_commits(memory_path: Path, seed: int) -> None:
    """Killed at any time during four parallel commits, all acknowledged chunks read equal, before and after opening."""
    answered: list[int] = []
    with _script(memory_path, "stream") as process:
        assert process.stdout is not None
        before = random.Random(seed).randrange(1, 150)
        answered += [int(process.stdout.readline()) for _ in range(before)]
        process.kill()
        answered += [int(line) for line in process.stdout if line.endswith("\n")]
    _assert_readable(memory_path / "one", answered)
    archive = StreamArchive.open(memory_path / "one")
    assert archive.chunks().keys() >= set(answered)
    _assert_whole(archive)
    assert commit(archive, answered[0]).repeated
