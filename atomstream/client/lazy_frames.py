"""Frames of a stream as xarray and dask arrays that read only what is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atomstream.optional import load

if TYPE_CHECKING:
    import xarray

PIECE_BYTES: Final = 64 << 20
"""Pixels in a piece: whole chunks of the stream, because each part of a chunk costs a look-up in its index."""


def in_pieces(frames: xarray.DataArray, chunk_size: int) -> xarray.DataArray:
    """The frames as a dask array of whole chunks of the stream; unchanged where dask is not installed."""
    try:
        load("dask", "", "")
    except ImportError:
        return frames
    nbytes = chunk_size * math.prod(frames.shape[1:]) * frames.dtype.itemsize
    return frames.chunk({"time": chunk_size * max(1, PIECE_BYTES // max(nbytes, 1))})


def lazy_frames(
    source: Any, numbers: np.ndarray[Any, Any], attributes: Mapping[str, Any]
) -> xarray.DataArray:
    """The frames ``numbers`` of ``source`` (see :class:`LazyFrames`) as a DataArray that reads what is used."""
    xarray = load("xarray", "to_xarray", "frames")
    indexing = load("xarray.core.indexing", "to_xarray", "frames")

    class Frames(xarray.backends.BackendArray):  # type: ignore[misc, name-defined]  # xarray is imported at run time
        """Reads rows of ``source``."""

        shape = (len(numbers), *source.shape[1:])
        dtype = source.dtype

        def __getitem__(self, key: Any) -> Any:
            outer = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

        def _read(self, key: tuple[Any, ...]) -> Any:
            read = source[np.atleast_1d(numbers[key[0]])]
            read = read[:, :, key[2]][:, key[1]]
            return read if np.ndim(numbers[key[0]]) else read[0]

    variable = xarray.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(Frames()), attributes)
    return xarray.DataArray(variable)  # type: ignore[no-any-return]  # xarray is imported at run time
