"""``atomstream stream FILE`` as fast as possible, compared with reading the same file alone; and its memory.

The files are larger than what the client holds at a time, and are read from the disk. Sink and client share the cores.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.config import default_buffer_bytes
from benchmarks.frames import frames_file
from benchmarks.processes import work
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink

GB: Final = 2.0
"""Frames of a file, uncompressed."""
PROGRAM_MB: Final = 150.0
"""Memory of the interpreter and its libraries."""
CHUNKS: Final = 4
"""Chunks in memory besides the client's buffer: being read, read ahead, being sent, and its one above the limit."""


def measure(plan: Plan) -> list[Row]:
    """Return the frames per second and the memory of each kind of file."""
    height, width = plan.sizes()[0]
    count = 2 * plan.chunk if plan.quick else round(GB * 1e9 / (height * width))
    frames = np.load(frames_file(plan.shm, height, width, plan.chunk), mmap_mode="r")
    rows: list[Row] = []
    for name, write in list(KINDS.items())[: 1 if plan.quick else None]:
        path = plan.disk / name
        write(path, itertools.islice(itertools.cycle(frames), count), (count, height, width))
        rows += _rows(plan, path, height * width)
        path.unlink()
    return rows


def _rows(plan: Plan, path: Path, frame_bytes: int) -> list[Row]:
    fps: dict[str, list[float]] = {}
    peaks: list[float] = []
    with running_sink() as sink:
        for k in range(plan.repeats):
            job = {"file": str(path), "url": sink.url, "spool": str(plan.disk / f"spool-{path.name}-{k}")}
            for way in ("library", "reader", "stream"):
                answer = work(sys.executable, "read_file", {**job, "way": way})
                fps.setdefault(way, []).append(answer["frames"] / answer["s"])
            peaks.append(answer["peak_mb"])
    most = (default_buffer_bytes() + CHUNKS * plan.chunk * frame_bytes) / 1e6 + PROGRAM_MB
    streamed, read = (
        {"ours": fps["stream"], "bare": fps["reader"]},
        {"ours": fps["reader"], "bare": fps["library"]},
    )
    return [
        Row(
            f"atomstream stream {path.name}",
            "frames/s",
            streamed,
            (Goal(0.8, "bare", at_least=True),),
            "bare: the reader alone",
        ),
        Row(f"reading {path.name}", "frames/s", read, (), "bare: the library alone"),
        Row(
            f"peak of memory, {path.name}",
            "MB",
            {"ours": peaks},
            (Goal(round(most)),),
            "the same for a file of any length",
        ),
    ]


Shape = tuple[int, int, int]


def write_tiff(path: Path, frames: Iterator[np.ndarray], _shape: Shape) -> None:
    """Write uncompressed pages one by one, as a camera program does."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for frame in frames:
            file.write(frame, contiguous=False, metadata=None, photometric="minisblack")


def write_hdf5(path: Path, frames: Iterator[np.ndarray], shape: Shape) -> None:
    """Write a dataset with one chunk per frame, as areaDetector does."""
    import h5py

    with h5py.File(path, "w") as file:
        stack = file.create_dataset("frames", shape, "u1", chunks=(1, *shape[1:]))
        for number, frame in enumerate(frames):
            stack[number] = frame


def _video(codec: str, pixels: str) -> Callable[[Path, Iterator[np.ndarray], Shape], None]:
    def write(path: Path, frames: Iterator[np.ndarray], shape: Shape) -> None:
        import av

        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, rate=120)
            stream.height, stream.width, stream.pix_fmt = shape[1], shape[2], pixels
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray")
                picture = picture.reformat(format=pixels)
                picture.pts, picture.time_base = number, Fraction(1, 120)
                file.mux(stream.encode(picture))
            file.mux(stream.encode(None))

    return write


KINDS: Final[dict[str, Callable[[Path, Iterator[np.ndarray], Shape], None]]] = {
    "pages.tif": write_tiff, "frames.h5": write_hdf5, "grey.avi": _video("rawvideo", "gray"),
    "mjpeg.avi": _video("mjpeg", "yuvj420p"),
}  # fmt: skip


if __name__ == "__main__":
    main(measure)
