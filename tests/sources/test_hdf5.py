from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from tests.sources.source_files import DEEP, FRAMES, read

h5py = pytest.importorskip("h5py")


def times_of(path: Path) -> npt.NDArray[Any]:
    return np.concatenate(
        [chunk.times_s for chunk in open_source(path).chunks(4) if chunk.times_s is not None]
    )


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".nxs"])
@pytest.mark.parametrize("frames", [FRAMES, DEEP, DEEP.astype(">u2"), FRAMES[0]])
def test_the_only_stack_is_found(tmp_path: Path, suffix: str, frames: npt.NDArray[Any]) -> None:
    """The only array that can be frames needs no name, wherever it is in the file."""
    with h5py.File(tmp_path / f"a{suffix}", "w") as file:
        file.create_dataset("run/one/camera", data=frames, chunks=frames.ndim == 3 or None)
        file.create_dataset("run/one/temperature", data=np.arange(11.0))
    expected = frames if frames.ndim == 3 else frames[None]
    np.testing.assert_array_equal(read(open_source(tmp_path / f"a{suffix}")), expected)


def test_area_detector(tmp_path: Path) -> None:
    """areaDetector's layout is found, with the time of each frame."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["data"] = DEEP
        file["entry/data/data"] = detector["data"]
        file["entry/instrument/performance/timestamp"] = np.zeros((11, 5))
        file["entry/instrument/NDAttributes/NDArrayTimeStamp"] = 1.1e9 + np.arange(11) / 50
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.h5")), DEEP)
    np.testing.assert_allclose(times_of(tmp_path / "a.h5"), np.arange(11) / 50, atol=1e-6)


def test_the_signal_of_nexus(tmp_path: Path) -> None:
    """The attributes default, signal and axes lead to the frames and their times, with the unit of the file."""
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file.attrs["default"] = "scan"
        scan = file.create_group("scan")
        scan.attrs["default"] = "images"
        images = scan.create_group("images")
        images.attrs.update({"signal": "counts", "axes": ["delay", "y", "x"]})
        images["counts"] = FRAMES
        images["other"] = DEEP
        images["delay"] = 40.0 * np.arange(11)
        images["delay"].attrs["units"] = "ms"
    source = open_source(tmp_path / "a.nxs")
    np.testing.assert_array_equal(read(source), FRAMES)
    np.testing.assert_allclose(times_of(tmp_path / "a.nxs"), 0.04 * np.arange(11))
    with h5py.File(tmp_path / "old.nxs", "w") as file:
        file["entry/data/film"] = FRAMES
        file["entry/data/film"].attrs["signal"] = 1
        file["entry/more"] = DEEP
    np.testing.assert_array_equal(read(open_source(tmp_path / "old.nxs")), FRAMES)


def test_several_arrays_need_a_name(tmp_path: Path) -> None:
    """Several stacks are listed; the dataset chooses one."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one/film"] = FRAMES
        file["two/film"] = DEEP
    with pytest.raises(ConfigError, match=r"one/film, two/film.*--dataset"):
        open_source(tmp_path / "a.h5")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.h5", dataset="/two/film")), DEEP)
    with pytest.raises(ConfigError, match="no array 'three'"):
        open_source(tmp_path / "a.h5", dataset="three")


def test_frames_that_were_never_written(tmp_path: Path) -> None:
    """HDF5 gives zeros for them; here they are missing frames."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        film = file.create_dataset("film", (11, 48, 64), np.uint8, chunks=(1, 48, 64))
        film[:4] = FRAMES[:4]
        film[6:9] = FRAMES[6:9]
        file.create_dataset("nothing", (11, 48, 64), np.uint8)
    source = open_source(tmp_path / "a.h5", dataset="film", skip_damaged=True)
    chunks = list(source.chunks(20))
    np.testing.assert_array_equal(np.concatenate([c.frames for c in chunks]), FRAMES[[0, 1, 2, 3, 6, 7, 8]])
    assert chunks[0].indices is not None
    assert chunks[0].indices.tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(4, 2), (9, 2)]
    with pytest.raises(ConfigError, match="never written"):
        open_source(tmp_path / "a.h5", dataset="nothing")


def test_a_damaged_chunk(tmp_path: Path) -> None:
    """A chunk that can't be decompressed: the frames before and behind are whole."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        film = file.create_dataset(
            "film", data=FRAMES, chunks=(1, 48, 64), compression="gzip", fletcher32=True
        )
        place = film.id.get_chunk_info(6)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place.byte_offset + 20] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    chunks = open_source(tmp_path / "a.h5", skip_damaged=False).chunks(20)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:6])
    with pytest.raises(DamagedSourceError, match=r"frame 6 of a\.h5.*4 frames behind"):
        next(chunks)


def test_damaged_files(tmp_path: Path) -> None:
    """A file that is cut off, no HDF5, or empty is refused in words."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["film"] = FRAMES
    content = (tmp_path / "a.h5").read_bytes()
    for name, part, sentence in (
        ("cut.h5", content[:-1000], "cut off"),
        ("text.h5", b"temperature,1\n" * 500, "no HDF5 signature"),
        ("empty.h5", b"", "the file is empty"),
    ):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ConfigError, match=f"{name}.*{sentence}"):
            open_source(tmp_path / name)


def test_a_missing_part_of_a_virtual_dataset(tmp_path: Path) -> None:
    """HDF5 gives zeros for the frames of a missing file; here it is an error that names the file."""
    for number in range(2):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file["film"] = FRAMES[:5]
    layout = h5py.VirtualLayout((10, 48, 64), np.uint8)
    for number in range(2):
        layout[5 * number : 5 * number + 5] = h5py.VirtualSource(f"part{number}.h5", "film", (5, 48, 64))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("film", layout)
    np.testing.assert_array_equal(read(open_source(tmp_path / "all.h5")), np.tile(FRAMES[:5], (2, 1, 1)))
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(ConfigError, match=r"part1\.h5, which is missing"):
        open_source(tmp_path / "all.h5")


@pytest.mark.parametrize("kind", ["Bitshuffle", "Blosc"])
def test_filters_of_hdf5plugin(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors' compression is read with hdf5plugin; without it the error names the filter and the package."""
    plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("film", data=DEEP, chunks=(1, 48, 64), **getattr(plugin, kind)())
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.h5")), DEEP)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    with pytest.raises(ConfigError, match=rf"(?i)compressed by {kind}.*hdf5plugin"):
        open_source(tmp_path / "a.h5")
