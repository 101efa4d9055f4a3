"""A recording of any length is streamed in the memory of some chunks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.scripts import run_python
from tests.sources.avi_files import avi

h5py = pytest.importorskip("h5py")
tifffile = pytest.importorskip("tifffile")
pytest.importorskip("av")

SHORT, LONG = 120, 720
SHAPE = (256, 512)


def write(kind: str, path: Path, count: int) -> Path:
    frames: npt.NDArray[np.uint8] = np.broadcast_to(
        np.arange(count).astype(np.uint8)[:, None, None], (count, *SHAPE)
    )
    if kind == "avi":
        path.mkdir()
        return avi(frames, top_down=True)(path)
    if kind == "tif":
        with tifffile.TiffWriter(path) as file:
            for frame in frames:
                file.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("frames", data=frames, chunks=(1, *SHAPE))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of memory of a process")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """After files of 16 MB of each kind, those of 94 MB need at most 45 MB more, for full queues and pools."""
    kinds = ["tif", "avi", "h5"]
    files = [write(kind, tmp_path / f"{n}.{kind}", n) for n in (SHORT, LONG) for kind in kinds]
    done = run_python("-m", "tests.cli.stream_files", tmp_path / "spool", *files)
    assert done.returncode == 0, done.stderr
    frames, peaks = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert frames == (*[SHORT] * 3, *[LONG] * 3)
    assert peaks[-1] - peaks[2] < 45e6
