"""Files that are still being written: each frame once, in order, whole, and never before it was written."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
import zarr

from atomstream.errors import ConfigError
from atomstream.sources import follow_source
from atomstream.sources.growth import POLL_S, Growth

N = 7
FRAMES = np.random.default_rng(5).integers(1, 250, (N, 12, 16)).astype(np.uint8)


class Written(Growth):
    """A growth in which the writer does its next step whenever the reader waits; its clock moves with each."""

    def __init__(self, steps: Iterator[object], idle_end_s: float | None = 20.0) -> None:
        self.now = 0.0
        self._steps = steps
        super().__init__(idle_end_s, lambda: self.now)

    def wait(self, seconds: float = POLL_S) -> None:
        """Let the writer go on."""
        self.now += max(seconds, POLL_S)
        next(self._steps, None)

    pause = wait


def followed(path: Path, steps: Iterator[object], **options: Any) -> np.ndarray:
    """All frames of a file while ``steps`` writes it, read one by one."""
    growth = Written(steps, options.pop("idle_end_s", 20.0))
    source = follow_source(path, growth=growth, **{"fps": 10.0, **options})
    chunks = list(source.chunks(1))
    assert [int(chunk.indices[0]) for chunk in chunks if chunk.indices is not None] == list(
        range(len(chunks))
    )
    times = np.concatenate([chunk.times_s for chunk in chunks if chunk.times_s is not None])
    assert len(times) == len(chunks)
    assert (np.diff(times) >= 0).all()
    assert source.gaps == []
    return np.concatenate([chunk.frames for chunk in chunks])


def cuts(path: Path, states: list[bytes]) -> Iterator[None]:
    """Write the file in the states ``states``, and between them with a part of what the next one adds."""
    before = len(states[0]) // 3
    path.write_bytes(states[0][:before])
    for state in states:
        for end in np.linspace(before, len(state), 4).astype(int)[1:].tolist():
            path.write_bytes(state[:end])
            yield
        before = len(state)


def tiff_states(**how: Any) -> list[bytes]:
    """A TIFF after each of its pages."""
    file = io.BytesIO()
    states = []
    with tifffile.TiffWriter(file, **how) as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
            states.append(file.getvalue())
    return states


@pytest.mark.parametrize("how", [{}, {"bigtiff": True}], ids=["TIFF", "BigTIFF"])
def test_tiff_page_by_page(tmp_path: Path, how: dict[str, Any]) -> None:
    """Pages of which a part is missing, and links that lead behind the end of the file, are waited for."""
    path = tmp_path / "a.tif"
    path.touch()
    np.testing.assert_array_equal(followed(path, cuts(path, tiff_states(**how))), FRAMES)


def test_raw_pixels(tmp_path: Path) -> None:
    """A raw file grows by any number of bytes; only whole frames are read."""
    path = tmp_path / "a.img"
    data = b"".join(bytes(10) + frame.tobytes() for frame in FRAMES)
    path.touch()
    steps = cuts(path, [data[:end] for end in range(150, len(data) + 1, 101)] + [data])
    np.testing.assert_array_equal(followed(path, steps, geometry="16x12+10"), FRAMES)


def avi(codec: str, form: str) -> bytes:
    """A video of the frames."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "gray"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray")))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(("codec", "form"), [("rawvideo", "avi"), ("ffv1", "avi"), ("ffv1", "matroska")])
def test_video(tmp_path: Path, codec: str, form: str) -> None:
    """A video is decoded as its bytes arrive."""
    path = tmp_path / ("a.avi" if form == "avi" else "a.mkv")
    data = avi(codec, form)
    path.touch()
    np.testing.assert_array_equal(followed(path, cuts(path, [data])), FRAMES)


def test_zarr(tmp_path: Path) -> None:
    """An array is made longer before its chunks are written: a chunk without a file is not a black frame."""
    path = tmp_path / "a.zarr"

    def write() -> Iterator[None]:
        array = zarr.create_array(path, shape=(0, 12, 16), chunks=(2, 12, 16), dtype="u1", compressors=None)
        yield
        for begin in range(0, N, 2):
            part = FRAMES[begin : begin + 2]
            array.resize((begin + len(part), 12, 16))
            yield
            array[begin : begin + len(part)] = part
            yield

    steps = write()
    next(steps)
    np.testing.assert_array_equal(followed(path, steps), FRAMES)


WRITER = """
import sys, h5py, numpy as np
frames = np.load(sys.argv[2])
file = h5py.File(sys.argv[1], "w", libver=None if sys.argv[3] == "old" else "latest")
data = file.create_dataset("entry/data/data", (0, 12, 16), "u1", chunks=(1, 12, 16), maxshape=(None, 12, 16))
times = file.create_dataset("entry/data/time", (0,), "f8", chunks=(4,), maxshape=(None,))
times.attrs["units"] = "s"
if sys.argv[3] == "swmr":
    file.swmr_mode = True
for k, frame in enumerate(frames):
    for step in range(3):
        print("done", flush=True)
        sys.stdin.readline()
        if step == 0:
            data.resize(k + 1, 0)
        elif step == 1:
            data[k] = frame
        else:
            times.resize(k + 1, 0)
            times[k] = 5.0 + k / 10
        file.flush()
file.close()
print("done", flush=True)
sys.stdin.read()
"""


def hdf5_writer(folder: Path, mode: str) -> Iterator[Callable[[], Iterator[None]]]:
    """A program that writes an HDF5 file; a step of it adds the place of a frame, its pixels, or its time."""
    np.save(folder / "frames.npy", FRAMES)
    command = [sys.executable, "-c", WRITER, str(folder / "a.h5"), str(folder / "frames.npy"), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        out, into = process.stdout, process.stdin
        out.readline()

        def steps() -> Iterator[None]:
            for _ in range(3 * N):
                into.write("\n")
                into.flush()
                out.readline()
                yield

        yield steps
        into.close()


def test_hdf5_in_swmr_mode(tmp_path: Path) -> None:
    """A frame is delivered when its pixels and its time were written, and the next one has begun."""
    for steps in hdf5_writer(tmp_path, "swmr"):
        np.testing.assert_array_equal(followed(tmp_path / "a.h5", steps()), FRAMES)


def test_hdf5_without_swmr(tmp_path: Path) -> None:
    """A file that is written without SWMR can't be read safely meanwhile; HDF5 1.10 and later locks it."""
    for steps in hdf5_writer(tmp_path, "old"):
        with pytest.raises(ConfigError, match="not in SWMR mode"):
            followed(tmp_path / "a.h5", steps())
    for steps in hdf5_writer(tmp_path, "locked"):
        writing = steps()
        next(writing)
        with pytest.raises(ConfigError, match="not in SWMR mode"):
            follow_source(tmp_path / "a.h5", growth=Written(iter(()), 1.0))
        np.testing.assert_array_equal(followed(tmp_path / "a.h5", writing), FRAMES)


def test_times_of_frames_without_their_own(tmp_path: Path) -> None:
    """Frames that were there count back from the opening; later ones have the time at which they were seen."""
    path = tmp_path / "a.raw"
    path.write_bytes(FRAMES[:3].tobytes())

    def write() -> Iterator[None]:
        for k in range(3, N):
            for _ in range(10):
                yield
            path.write_bytes(FRAMES[: k + 1].tobytes())

    growth = Written(write(), 20.0)
    source = follow_source(path, growth=growth, fps=10.0, geometry="16x12")
    assert source.age_s() == pytest.approx(0.2)
    times = np.concatenate([chunk.times_s for chunk in source.chunks(1) if chunk.times_s is not None])
    assert times[:3] == pytest.approx([0.0, 0.1, 0.2])
    assert np.diff(times[2:]) == pytest.approx(
        np.full(N - 3, 1.1), abs=0.2
    )  # one frame each 1.1 s, also the last


def test_stop_leaves_out_what_is_being_written(tmp_path: Path) -> None:
    """Ctrl-C ends it: whole frames are delivered, the unfinished one is not damage."""
    path = tmp_path / "a.raw"
    path.write_bytes(FRAMES.tobytes()[:-50])
    growth = Written(iter(()), None)
    source = follow_source(path, growth=growth, fps=10.0, geometry="16x12")
    chunks = source.chunks(2)
    found = [next(chunks).frames]
    source.stop()
    found += [chunk.frames for chunk in chunks]
    np.testing.assert_array_equal(np.concatenate(found), FRAMES[:-1])
    assert source.gaps == []


def test_the_end_of_a_damaged_file_is_reported(tmp_path: Path) -> None:
    """After the silence, a frame that is not whole is missing."""
    path = tmp_path / "a.raw"
    path.write_bytes(FRAMES.tobytes()[:-50])
    source = follow_source(path, growth=Written(iter(())), fps=10.0, geometry="16x12", skip_damaged=True)
    assert sum(len(chunk.frames) for chunk in source.chunks(4)) == N - 1
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(N - 1, 1)]


def test_a_damaged_page_between_whole_ones(tmp_path: Path) -> None:
    """A page that stays unreadable while others follow is left out after some seconds."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        place, size = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(bytes(size))
    source = follow_source(path, growth=Written(iter(())), fps=10.0, skip_damaged=True)
    found = np.concatenate([chunk.frames for chunk in source.chunks(3)])
    np.testing.assert_array_equal(found, np.delete(FRAMES, 2, 0))
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(2, 1)]


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    """A file that is replaced ends the following with an error, after the frames that were there."""
    path = tmp_path / "a.raw"
    path.write_bytes(FRAMES.tobytes())

    def write() -> Iterator[None]:
        path.write_bytes(FRAMES[:1].tobytes())
        yield

    source = follow_source(path, growth=Written(write()), fps=10.0, geometry="16x12")
    chunks = source.chunks(100)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:-1])
    with pytest.raises(ConfigError, match="replaced, or cut off"):
        next(chunks)


def test_what_can_not_be_followed(tmp_path: Path) -> None:
    """Files that are readable when they are complete only are refused, with the way out where there is one."""
    np.save(tmp_path / "a.npy", FRAMES)
    (tmp_path / "a.img").write_bytes(bytes(1000))
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08mdat")
    (tmp_path / "pictures").mkdir()
    zarr.save(str(tmp_path / "hwn.zarr"), np.moveaxis(FRAMES, 0, 2))
    for name, text, options in (
        ("a.npy", "complete", {}),
        ("a.img", "--geometry", {}),
        ("a.mp4", "index", {}),
        ("pictures", "--camera folder", {}),
        ("nothing.tif", "does not exist", {}),
        ("hwn.zarr", "first axis", {"axes": "HWN"}),
    ):
        with pytest.raises(ConfigError, match=text):
            follow_source(tmp_path / name, growth=Written(iter(())), **options)
