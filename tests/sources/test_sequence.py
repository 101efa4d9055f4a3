from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, ReadAhead, open_source, open_sources
from tests.sources.source_files import DEEP, FRAMES, read, tifffile, write_video, zarr


def test_files_in_a_row_are_one_recording(tmp_path: Path) -> None:
    """Several files, of any kinds, give their frames in the given order; one file alone is itself."""
    np.save(tmp_path / "b.npy", FRAMES[:5])
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[5:7])
    np.save(tmp_path / "c.npy", FRAMES[7:])
    paths = [tmp_path / name for name in ("b.npy", "a.tif", "c.npy")]
    for chunk_size in (1, 3, 4, 100):
        source = open_sources(paths)
        np.testing.assert_array_equal(read(source, chunk_size), FRAMES)
    assert source.n_frames == 11
    indices = [chunk.indices for chunk in source.chunks(4)]
    assert np.concatenate([i for i in indices if i is not None]).tolist() == list(range(11))
    assert type(open_sources(paths[:1])) is type(open_source(paths[0]))


def test_the_times_go_on(tmp_path: Path) -> None:
    """The times of each file begin one frame after the file before."""
    for name, part in (("a", FRAMES[:6]), ("b", FRAMES[6:])):
        write_video(tmp_path / f"{name}.avi", part, list(range(len(part))), rate=25)
    source = open_sources([tmp_path / "a.avi", tmp_path / "b.avi"])
    np.testing.assert_array_equal(read(source), FRAMES)
    times = np.concatenate([chunk.times_s for chunk in source.chunks(4) if chunk.times_s is not None])
    np.testing.assert_allclose(times, np.arange(11) / 25, atol=1e-9)
    assert source.fps == pytest.approx(25)


def test_damage_in_one_of_the_files(tmp_path: Path) -> None:
    """Numbers, gaps and the frames that are left count through all files."""
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", FRAMES[:4])
    path = tmp_path / "1.npy"
    path.write_bytes(path.read_bytes()[: -2 * FRAMES[0].nbytes])
    paths = [tmp_path / f"{k}.npy" for k in range(3)]
    source = open_sources(paths, skip_damaged=True)
    chunks = list(source.chunks(5))
    indices = np.concatenate([chunk.indices for chunk in chunks if chunk.indices is not None])
    assert indices.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert [(gap.frame, gap.frames, gap.file) for gap in source.gaps] == [(6, 2, "1.npy")]
    with pytest.raises(DamagedSourceError, match=r"frames 6 to 7 of 1\.npy.*4 frames behind"):
        list(open_sources(paths, skip_damaged=False).chunks(5))
    frames = []
    with pytest.raises(DamagedSourceError, match="all other frames were read"):
        frames.extend(chunk.frames for chunk in open_sources(paths).chunks(5))
    assert sum(map(len, frames)) == 10


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    """Another size or depth is named when the files are opened."""
    np.save(tmp_path / "a.npy", FRAMES)
    np.save(tmp_path / "b.npy", DEEP)
    with pytest.raises(ConfigError, match=r"b\.npy has frames \(48, 64\) uint16, but .*a\.npy"):
        open_sources([tmp_path / "a.npy", tmp_path / "b.npy"])


def test_a_zipped_zarr(tmp_path: Path) -> None:
    """.zarr.zip is read like a Zarr folder: an array, and a group with its rate."""
    store = zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w")
    zarr.create_array(store=store, data=DEEP, chunks=(3, 48, 64))
    store.close()
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.zarr.zip")), DEEP)
    (tmp_path / "b.zarr.zip").write_bytes((tmp_path / "a.zarr.zip").read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"b\.zarr\.zip can't be read as Zarr"):
        open_source(tmp_path / "b.zarr.zip")


def test_reading_ahead_keeps_the_order() -> None:
    """All items come in order, and an exception after the items before it."""

    def items() -> Iterator[int]:
        yield from range(50)
        raise ConfigError("the end")

    ahead = ReadAhead(items(), depth=3)
    found = []
    with pytest.raises(ConfigError, match="the end"), ahead:
        found.extend(ahead)
    assert found == list(range(50))
    assert list(ahead) == []


def test_reading_ahead_holds_a_few_items_and_ends() -> None:
    """No more than the given number is read ahead; closing ends the thread and closes the iterator in it."""
    made: list[int] = []
    enough = threading.Event()
    closed_by: list[str] = []

    def items() -> Iterator[int]:
        try:
            for k in range(1000):
                made.append(k)
                if k == 3:
                    enough.set()
                yield k
        finally:
            closed_by.append(threading.current_thread().name)

    with ReadAhead(items(), depth=2) as ahead:
        assert next(ahead) == 0
        assert enough.wait(60)
        assert made == [0, 1, 2, 3]
    assert closed_by == ["atomstream-read-ahead"]
    with pytest.raises(StopIteration):
        next(ahead)
