"""Frames from a Zarr array, or from a group with one, for example an atomstream archive."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .frame_source import optional_package
from .options import ReadOptions

_MARKERS = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Return True if the folder is a Zarr array or group, version 2 or 3."""
    return any((path / marker).is_file() for marker in _MARKERS)


def open_zarr(path: Path, options: ReadOptions) -> ArraySource:
    """Open a Zarr array, or the array ``dataset`` (default ``frames``) of a group.

    In a group, an array ``time`` has the times of the frames in s, and an attribute ``fps`` the nominal rate.
    """
    node = _open(path)
    if not hasattr(node, "keys"):
        if options.dataset is not None:
            raise ConfigError(f"{path} is a single array; leave out the dataset {options.dataset!r}")
        return ArraySource(node, name=str(path), fps=_fps(node.attrs))
    name = options.dataset or "frames"
    if name not in node or hasattr(node[name], "keys"):
        there = ", ".join(sorted(key for key, _ in node.arrays())) or "none"
        raise ConfigError(f"{path} has no array {name!r}; choose a dataset of {there}")
    array = node[name]
    fps = _fps(array.attrs) or _fps(node.attrs)
    return ArraySource(array, name=f"{path} [{name}]", fps=fps, times_s=_times(node, array))


def _open(path: Path) -> Any:
    zarr = optional_package("zarr", "server", "Reading Zarr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # zarr warns about codecs that other programs can't read; this only reads
            return zarr.open(store=str(path), mode="r")
    except Exception as error:  # KeyError, ValueError or others, depending on the zarr version
        raise ConfigError(f"{path} can't be read as Zarr: {error}") from error


def _times(group: Any, array: Any) -> np.ndarray[Any, Any] | None:
    if "time" not in group or group["time"].shape != array.shape[:1] or group["time"].dtype.kind not in "iuf":
        return None
    return np.asarray(group["time"][:], dtype=np.float64)


def _fps(attributes: Any) -> float | None:
    value = attributes.get("fps")
    return float(value) if isinstance(value, int | float) and value > 0 else None
