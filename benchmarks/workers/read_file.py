"""Reads one recording to its end in one of three ways, and prints the time, the frames and the peak of memory as JSON.

``library``: by tifffile, PyAV or h5py alone. ``reader``: by the project's reader. ``stream``: ``atomstream stream``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

import atomstream.streaming
from atomstream.cli import main as command
from atomstream.sources import open_source

CHUNK: Final = 240


def library(job: dict[str, Any]) -> int:
    """Read with the library of the format alone, as a short script would."""
    path, frames = job["file"], 0
    if path.endswith(".tif"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            for page in file.pages:
                frames += len(page.asarray()[None])
    elif path.endswith(".h5"):
        import h5py

        with h5py.File(path) as file:
            for begin in range(0, len(file["frames"]), CHUNK):
                frames += len(file["frames"][begin : begin + CHUNK])
    else:
        import av

        with av.open(path) as file:
            for frame in file.decode(video=0):
                frames += len(_luma(frame)[None])
    return frames


def _luma(frame: Any) -> np.ndarray:
    rows = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
    return rows[:, : frame.width].copy()


def reader(job: dict[str, Any]) -> int:
    """Read with the reader that the command uses."""
    return sum(len(chunk.frames) for chunk in open_source(job["file"]).chunks(CHUNK))


def stream(job: dict[str, Any]) -> int:
    """Stream the file as fast as possible; all frames must be stored."""
    arguments = ["stream", job["file"], "--no-pace", "--fps", "120", "--chunk-size", str(CHUNK)]
    sys.argv = ["atomstream", *arguments, "--endpoint", job["url"], "--api-key", "k" * 32]
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        try:
            code = command()
        except SystemExit as end:
            code = end.code
    if code:
        raise RuntimeError(f"exit code {code}: {report.getvalue()}")
    (line,) = (line for line in report.getvalue().splitlines() if line.startswith("Frames"))
    return int(line.split(", ")[1].split()[0])


WAYS: Final[dict[str, Callable[[dict[str, Any]], int]]] = {
    "library": library, "reader": reader, "stream": stream,
}  # fmt: skip


def main() -> None:
    job = json.loads(sys.argv[1])
    os.environ["ATOMSTREAM_SPOOL_DIR"] = job["spool"]
    del atomstream.streaming  # already imported, so that the import is not measured
    drop_from_page_cache(job["file"])
    begun, cpu = time.perf_counter(), time.process_time()
    frames = WAYS[job["way"]](job)
    took = {"s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    print(json.dumps({"frames": frames, "peak_mb": peak_mb(), **took}))


def drop_from_page_cache(path: str) -> None:
    """Drop the file from the page cache, so that it is read from the disk, as a file of 10 GB is."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_mb() -> float:
    """Return the peak of this process's memory in MB; 0 where the system does not report it."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    return 0.0


if __name__ == "__main__":
    main()
