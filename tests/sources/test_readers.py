from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import ArraySource, open_source
from tests.sources.source_files import DEEP, FRAMES, REAL, read, tifffile, write_image, write_video, zarr


@pytest.mark.parametrize("frames", [FRAMES, DEEP, DEEP.astype(">u2"), np.asfortranarray(FRAMES), FRAMES[0]])
def test_npy_is_read_whatever_its_layout(tmp_path: Path, frames: npt.NDArray[Any]) -> None:
    """.npy with 8 or 16 bits, any byte order and memory order is read unchanged."""
    np.save(tmp_path / "a.npy", frames)
    expected = frames if frames.ndim == 3 else frames[None]
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.npy")), expected)


def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    """Each call of chunks() begins at the first frame, with any chunk size."""
    np.save(tmp_path / "a.npy", FRAMES)
    source = open_source(str(tmp_path / "a.npy"))
    for chunk_size in (1, 5, 11, 100):
        np.testing.assert_array_equal(read(source, chunk_size), FRAMES)
    with pytest.raises(ConfigError, match="chunk_size=0"):
        next(source.chunks(0))


def test_npz_takes_the_named_or_the_only_array(tmp_path: Path) -> None:
    """.npz: the given dataset, else `frames`, else the only array; or an error with the names."""
    np.savez(tmp_path / "one.npz", any_name=FRAMES)
    np.savez_compressed(tmp_path / "two.npz", frames=FRAMES, deep=DEEP)
    np.savez(tmp_path / "vague.npz", a=FRAMES, b=DEEP)
    np.testing.assert_array_equal(read(open_source(tmp_path / "one.npz")), FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path / "two.npz")), FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path / "two.npz", dataset="deep")), DEEP)
    with pytest.raises(ConfigError, match=r"no array 'frames'.*choose a dataset of a, b"):
        open_source(tmp_path / "vague.npz")


def test_real_frames_are_read() -> None:
    """The real Sb frames have the correct shape, dtype and brightness."""
    source = open_source(REAL)
    assert (source.n_frames, source.frame_shape, source.dtype) == (6, (259, 346), np.uint8)
    frames = read(source)
    assert frames.max() == 74
    assert len({frame.tobytes() for frame in frames}) == 6


def test_real_frames_survive_each_lossless_format(tmp_path: Path) -> None:
    """The real frames written as TIFF, PNG, FFV1 and Zarr read back equal."""
    frames = read(open_source(REAL))
    tifffile.imwrite(tmp_path / "a.tif", frames, compression="zlib")
    write_video(tmp_path / "a.mkv", frames, list(range(0, 600, 100)))
    zarr.create_array(str(tmp_path / "a.zarr"), data=frames, chunks=(1, 259, 346))
    (tmp_path / "pngs").mkdir()
    for k, frame in enumerate(frames):
        write_image(tmp_path / "pngs" / f"f{k}.png", frame)
    for name in ("a.tif", "a.mkv", "a.zarr", "pngs"):
        np.testing.assert_array_equal(read(open_source(tmp_path / name)), frames)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays_and_groups(tmp_path: Path, zarr_format: Any) -> None:
    """A Zarr array, or `frames` or another array of a group, version 2 or 3, with its fps."""
    zarr.create_array(str(tmp_path / "a.zarr"), data=DEEP, chunks=(3, 48, 64), zarr_format=zarr_format)
    group = zarr.create_group(str(tmp_path / "g"), zarr_format=zarr_format, attributes={"fps": 120.0})
    group.create_array("frames", data=FRAMES, chunks=(4, 48, 64))
    group.create_array("other", data=DEEP, chunks=(4, 48, 64))
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.zarr")), DEEP)
    source = open_source(tmp_path / "g")
    np.testing.assert_array_equal(read(source), FRAMES)
    assert source.fps == 120.0
    np.testing.assert_array_equal(read(open_source(tmp_path / "g", dataset="other")), DEEP)


def test_zarr_times_mark_gaps(tmp_path: Path) -> None:
    """A frame with the time NaN is skipped; the others keep their times."""
    times = np.arange(11) / 50.0 + 3.0
    times[[0, 5, 6]] = np.nan
    group = zarr.create_group(str(tmp_path / "frames.zarr"))
    group.create_array("frames", data=FRAMES, chunks=(4, 48, 64))
    group.create_array("time", data=times)
    source = open_source(tmp_path / "frames.zarr")
    taken = [1, 2, 3, 4, 7, 8, 9, 10]
    np.testing.assert_array_equal(read(source, 3), FRAMES[taken])
    times = np.concatenate([chunk.times_s for chunk in source.chunks(3) if chunk.times_s is not None])
    np.testing.assert_allclose(times, (np.array(taken) - 1) / 50)


def test_zarr_without_frames(tmp_path: Path) -> None:
    """A group with several arrays, none of them called frames, lists them; damaged metadata raises an error."""
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    group.create_array("film", data=FRAMES)
    group.create_array("dark", data=FRAMES)
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    zarr.create_array(str(tmp_path / "a.zarr"), data=FRAMES)
    with pytest.raises(ConfigError, match="choose a dataset of dark, film"):
        open_source(tmp_path / "g.zarr")
    with pytest.raises(ConfigError, match="can't be read as Zarr"):
        open_source(tmp_path / "bad.zarr")
    with pytest.raises(ConfigError, match="single array"):
        open_source(tmp_path / "a.zarr", dataset="frames")


def test_array_source_checks_its_times() -> None:
    """There must be one time per frame, and at least one finite time."""
    with pytest.raises(ConfigError, match=r"11 frames, but times of the shape \(3,\)"):
        ArraySource(FRAMES, times_s=[0.0, 1.0, 2.0])
    with pytest.raises(ConfigError, match="no frame has a time"):
        ArraySource(FRAMES, times_s=np.full(11, np.nan))
