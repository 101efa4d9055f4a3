"""Memory of chunks is used again only when nobody refers to it any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream.sources import open_source
from atomstream.sources.chunk_memory import ChunkMemory
from tests.sources.avi_files import avi


def test_memory_in_use_is_not_given_again() -> None:
    """Any view keeps it: a slice, another dtype, a memoryview; afterwards it is used again."""
    memory = ChunkMemory()
    shape = (4, 256, 256)
    for view in (
        lambda array: array,
        lambda array: array[1:2, ::2],
        lambda array: array.view(np.uint16).T,
        lambda array: memoryview(array.reshape(-1))[3:],
        lambda array: np.asarray(memoryview(array.reshape(-1))[:5]),
    ):
        array = memory.array(shape, np.uint8)
        address = array.ctypes.data
        kept = view(array)
        del array
        other = memory.array(shape, np.uint8)
        assert other.ctypes.data != address
        del kept
        assert memory.array(shape, np.uint8).ctypes.data == address
        del other


def test_arrays_of_any_size_and_number() -> None:
    """Sizes may change, arrays may all be kept, and they stay valid when the memory is cleared."""
    memory = ChunkMemory()
    made = [memory.array((n, 128, 2048), "<u2") for n in (1, 2, 3, 2, 1, 4, 4, 4, 0)]
    for number, array in enumerate(made):
        array[...] = number
        assert array.flags.c_contiguous
    memory.clear()
    del memory
    for number, array in enumerate(made):
        assert (array == number).all()


@pytest.mark.parametrize("kind", ["avi", "npy", "tif"])
def test_chunks_that_are_kept_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    """A caller may collect all chunks of a file, or parts of them."""
    frames = np.random.default_rng(4).integers(0, 255, (40, 128, 256)).astype(np.uint8)
    path = tmp_path / f"a.{kind}"
    if kind == "avi":
        path = avi(frames, top_down=True)(tmp_path)
    elif kind == "npy":
        np.save(path, frames)
    else:
        pytest.importorskip("tifffile").imwrite(path, frames, photometric="minisblack")
    kept = [chunk.frames for chunk in open_source(path).chunks(8)]
    np.testing.assert_array_equal(np.concatenate(kept), frames)
    parts = [chunk.frames[-1, 5:, ::3] for chunk in open_source(path).chunks(8)]
    np.testing.assert_array_equal(parts, frames[7::8, 5:, ::3])
