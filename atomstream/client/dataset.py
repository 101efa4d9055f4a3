"""``open_stream``: a stream as an xarray Dataset, from its archive on disk or from a server."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from atomstream.checks import checked_path
from atomstream.client.blocking_client import Client
from atomstream.client.lazy_frames import in_pieces
from atomstream.errors import ConfigError
from atomstream.optional import load

if TYPE_CHECKING:
    import xarray

KEPT: Final = "frame_kept"


def open_stream(
    stream: str | os.PathLike[str],
    *,
    with_removed: bool = False,
    api_key: str | None = None,
    endpoint: str | None = None,
) -> xarray.Dataset:
    """Open a stream as an xarray Dataset; frames are read when they are used.

    The Dataset has ``frames`` (time, y, x), each result of the analysis (time), and the coordinates ``time`` (s from
    the stream's start) and ``frame`` (number in the stream). Each variable has ``units`` and ``long_name``. An archive
    on disk also has marks, segments, regions and calibration as small arrays. Frames that never arrived are left out.

    With dask installed (the extra ``frames`` has it), frames are a dask array in pieces of whole chunks: a mean over
    hours of frames needs little memory and is as fast as zarr. Without dask an operation on all frames reads all of
    them into memory. A running stream grows; open it again to see more.

    Args:
        stream: the folder of a stream (``DATA/streams/<data_id>``) or its ``frames.zarr``, or the id of a stream on
            the server.
        with_removed: also frames that were removed by the rules of retention. Their pixels are 0; their results are
            as before. ``frame_kept`` is 0 for them.
        api_key: key of the server, for an id. None: as for :class:`Client`.
        endpoint: URL of the server, for an id. None: as for :class:`Client`.

    Raises:
        ConfigError: it is neither a folder with a stream nor an id, or there is no server for the id.
        NotFoundError: the server has no such stream.
        ImportError: xarray, or zarr for a folder, is not installed.
    """
    load("xarray", "open_stream", "frames")
    group = _group(checked_path("stream", stream))
    if group is not None:
        opened = _from_disk(group)
    elif _is_id(stream):
        opened = _from_server(str(stream), api_key, endpoint)
    else:
        raise ConfigError(
            f"{os.fspath(stream)} is neither a folder with a stream (DATA/streams/<data_id>, with frames.zarr in it) "
            "nor the id of a stream."
        )
    if KEPT in opened and not with_removed:
        close = opened._close
        opened = opened.isel(time=np.flatnonzero(opened[KEPT].values == 1))
        opened.set_close(close)
    return opened


def _group(path: Path) -> Path | None:
    for group in (path, path / "frames.zarr"):
        if (group / "zarr.json").is_file():
            return group
    return None


def _is_id(stream: str | os.PathLike[str]) -> bool:
    try:
        uuid.UUID(str(stream))
    except ValueError:
        return False
    return True


def _from_disk(group: Path) -> xarray.Dataset:
    xarray = load("xarray", "open_stream", "frames")
    load("zarr", "open_stream of a folder", "frames")
    opened = xarray.open_zarr(group, chunks=None, decode_times=False)
    if "frames" not in opened:
        raise ConfigError(f"{group} has no frames: no chunk of this stream is stored.")
    opened = opened.assign_coords(frame=("time", np.arange(opened.sizes["time"])))
    opened["frame"].attrs["long_name"] = "number of the frame in the stream"
    size = opened["frames"].encoding.get("shards") or opened["frames"].encoding["chunks"]
    opened["frames"] = in_pieces(opened["frames"], int(size[0]))
    received = np.isfinite(opened["time"].values)
    return opened if received.all() else opened.isel(time=np.flatnonzero(received))  # type: ignore[no-any-return]  # xarray is imported at run time


def _from_server(data_id: str, api_key: str | None, endpoint: str | None) -> xarray.Dataset:
    client = Client(api_key, endpoint)
    try:
        opened = client.get(data_id).to_xarray()
    except BaseException:
        client.close()
        raise
    opened.set_close(client.close)
    return opened
