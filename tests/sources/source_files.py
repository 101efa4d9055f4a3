"""Writes small files of each type for the tests of the readers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.sources import FrameSource, GrowthSpec, Simulator
from tests.paths import DATA

av = pytest.importorskip("av")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

FRAMES = Simulator(GrowthSpec(height=48, width=64, seed=9)).frames(0, 11)
DEEP = (FRAMES.astype(np.uint16) << 4) + 3
REAL = DATA / "sb_deposition_6x259x346.npz"


def read(source: FrameSource, chunk_size: int = 4) -> npt.NDArray[Any]:
    """Read all frames of a source, and check the rules for all sources."""
    chunks = list(source.chunks(chunk_size))
    assert isinstance(source, FrameSource)
    assert all(len(chunk.frames) == chunk_size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1].frames) <= chunk_size
    for chunk in chunks:
        assert chunk.frames.shape[1:] == source.frame_shape
        assert chunk.frames.dtype == source.dtype
        assert chunk.frames.flags.c_contiguous
        assert type(chunk.frames) is np.ndarray
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert source.n_frames in (None, len(frames))
    return frames


def write_video(path: Path, frames: npt.NDArray[Any], pts: list[int], **options: Any) -> None:
    """Write grey frames with these presentation timestamps (ms)."""
    options = {"codec": "ffv1", "pix_fmt": "gray", "source": "gray"} | options
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            options["codec"], rate=options.get("rate", 1000), options=options.get("options", {})
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = options["pix_fmt"]
        for image, stamp in zip(frames, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format=options["source"])
            frame.pts = stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_image(path: Path, image: npt.NDArray[Any], source: str = "gray", codec: str = "png") -> None:
    """Write one image; the packet of its codec is the file."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = image.shape[:2]
    context.pix_fmt = source
    context.time_base = Fraction(1)
    packets = context.encode(av.VideoFrame.from_ndarray(image, format=source)) + context.encode(None)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
