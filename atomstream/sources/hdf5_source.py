"""Frames from HDF5 and NeXus files; the layout of areaDetector and the signal of an NXdata group are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .frame_source import Times
from .hdf5_array import Hdf5Array, open_file
from .options import ReadOptions

HDF5_SUFFIXES: Final = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5", ".he5"})

_AREA_DETECTOR: Final = ("entry/data/data", "entry/instrument/detector/data")
_STAMPS: Final = "entry/instrument/NDAttributes/NDArrayTimeStamp"
"""Time of each frame in s, in files of areaDetector (since 1990-01-01)."""


def open_hdf5(path: Path, options: ReadOptions) -> ArraySource:
    """Open the frames of an HDF5 file: the given dataset, the signal of NeXus, areaDetector's, or the only stack."""
    with open_file(path) as file:
        dataset = _chosen(path, file, options.dataset)
        name = dataset.name.lstrip("/")
        array = Hdf5Array(path, name, dataset)
        return ArraySource(
            array,
            name=f"{path} [{name}]",
            fps=_rate(dataset),
            times_s=None if options.ignore_times else _times(file, dataset),
            axes=options.axes,
            channel=options.channel,
            levels=options.levels,
        )


def _chosen(path: Path, file: Any, dataset: str | None) -> Any:
    if dataset is not None:
        node = _node(file, dataset)
        found = node if _is_frames(node, 2) else _signal(node)
        if found is None:
            raise ConfigError(f"{path} has no array of frames {dataset!r}; {_choices(file)}")
        return found
    for candidate in (_nexus_default(file), *(_node(file, name) for name in _AREA_DETECTOR)):
        if candidate is not None and _is_frames(candidate, 2):
            return candidate
    for least in (3, 2):
        stacks = _all(file, least)
        if len(stacks) == 1:
            return stacks[0]
        if stacks:
            raise ConfigError(f"{path} holds several arrays; {_choices(file)}")
    raise ConfigError(f"{path} is empty: it holds no array that can be frames (N, H, W)")


def _choices(file: Any) -> str:
    names = ", ".join(node.name.lstrip("/") for node in _all(file, 2))
    return f"choose a dataset (--dataset) of {names or 'none'}"


def _node(group: Any, name: Any) -> Any:
    """Return the object with this name; None if it is missing, or a link leads nowhere."""
    try:
        return group[_text(name)]
    except (KeyError, ValueError, TypeError, OSError):
        return None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _is_frames(node: Any, least_axes: int) -> bool:
    kind = getattr(getattr(node, "dtype", None), "kind", "")
    return kind in set("buif") and len(node.shape or ()) >= least_axes


def _all(file: Any, least_axes: int) -> list[Any]:
    found: list[Any] = []

    def visit(_: str, node: Any) -> None:
        if _is_frames(node, least_axes):
            found.append(node)

    file.visititems(visit)
    return found


def _nexus_default(file: Any) -> Any:
    """Return the array that the attributes ``default`` and ``signal`` of a NeXus file lead to, or None."""
    node = file
    for _ in range(8):  # root, entry, data; files may nest entries
        signal = _signal(node)
        if signal is not None:
            return signal
        following = _node(node, node.attrs.get("default", ""))
        if following is None or not hasattr(following, "keys"):
            break
        node = following
    signals = [
        signal
        for entry in _groups(file)
        for group in (entry, *_groups(entry))
        if (signal := _signal(group)) is not None and _is_frames(signal, 3)
    ]
    unique = {signal.name: signal for signal in signals}
    return next(iter(unique.values())) if len(unique) == 1 else None


def _groups(group: Any) -> list[Any]:
    nodes = (_node(group, name) for name in group)
    return [node for node in nodes if hasattr(node, "keys")]


def _signal(group: Any) -> Any:
    if not hasattr(group, "keys"):
        return None
    signal = _node(group, group.attrs.get("signal", ""))
    if signal is not None and _is_frames(signal, 2):
        return signal
    for name in group:  # before 2014 the dataset itself had the attribute
        node = _node(group, name)
        if _is_frames(node, 2) and str(_text(node.attrs.get("signal", ""))) == "1":
            return node
    return None


def _rate(dataset: Any) -> float | None:
    for node in (dataset, dataset.parent, dataset.file):
        value = node.attrs.get("fps")
        if isinstance(value, int | float | np.number) and value > 0:
            return float(value)
    return None


def _times(file: Any, dataset: Any) -> Times | None:
    return None
