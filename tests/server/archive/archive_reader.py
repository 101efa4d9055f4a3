"""A script that reads a growing archive repeatedly until its status is ``success``; prints the number of reads.

``archive_reader.py GROUP zarr|xarray|tensorstore`` fails at the first read with an error or a difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from tests.server.archive.archive_helpers import frames_of


def by_zarr(path: Path) -> tuple[Any, Any]:
    """Frames and times through the group."""
    group = zarr.open_group(path, mode="r")
    if "frames" not in group:
        return None, None
    return group["frames"][:], group["time"][:]


def by_xarray(path: Path) -> tuple[Any, Any]:
    """Frames and times as a dataset, for which all arrays must have one length."""
    with xr.open_zarr(path) as dataset:
        if "frames" not in dataset:
            return None, None
        return dataset["frames"].values, dataset["time"].values


def by_tensorstore(path: Path) -> tuple[Any, Any]:
    """Each array separately; times are read last, so they may be longer."""
    import tensorstore

    if not (
        path / "time" / "zarr.json"
    ).exists():  # documents are written in this order: frames, empty, then time
        return None, None

    def read(name: str) -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
        return tensorstore.open(spec, open=True).result().read().result()

    frames = read("frames")
    return frames, read("time")[: len(frames)]


def main(path: Path, read: Any) -> None:
    """Read until the end."""
    reads, longest = 0, 0
    while True:
        ended = zarr.open_group(path, mode="r").attrs["status"] == "success"
        frames, times = read(path)
        if frames is not None and len(frames):
            assert len(frames) >= longest, "the array shrank"
            assert np.isfinite(times).all(), "a frame without its time"
            for index in range(0, len(frames), 4):
                assert np.array_equal(frames[index : index + 4], frames_of(index // 4)), f"chunk {index // 4}"
            longest = len(frames)
        reads += 1
        if reads == 1:
            sys.stdout.write("reading\n")
            sys.stdout.flush()
        if ended:
            break
    sys.stdout.write(f"{reads} {longest}\n")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), {"zarr": by_zarr, "xarray": by_xarray, "tensorstore": by_tensorstore}[sys.argv[2]]
    )
