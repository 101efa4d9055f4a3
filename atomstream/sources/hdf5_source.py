"""Frames from HDF5 and NeXus files; the layout of areaDetector and the signal of an NXdata group are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from .arrays import ArraySource
from .axes import Layout, layout, letters_of_names
from .datasets import chosen_array
from .frame_source import Times
from .hdf5_array import Hdf5Array, open_file
from .options import ReadOptions
from .times import TIME_NAMES, named_times, seconds, unit_seconds

HDF5_SUFFIXES: Final = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5", ".he5"})

_AREA_DETECTOR: Final = ("entry/data/data", "entry/instrument/detector/data")
_STAMPS: Final = "entry/instrument/NDAttributes/NDArrayTimeStamp"
"""Time of each frame in s, in files of areaDetector (since 1990-01-01)."""


def open_hdf5(path: Path, options: ReadOptions) -> ArraySource:
    """Open the frames of an HDF5 file: the dataset, the signal of NeXus, areaDetector's, ``frames`` or the only stack.

    The times of the frames are those of the first axis of NXdata, of areaDetector's NDArrayTimeStamp, or of an array
    ``time`` beside the frames. An attribute ``fps`` is the nominal rate.
    """
    with open_file(path) as file:
        dataset = _chosen(path, file, options.dataset)
        name = dataset.name.lstrip("/")
        known = _axes(dataset)
        times = None
        if not options.ignore_times:
            place = layout(f"{path} [{name}]", dataset.shape, options.axes, known=known)
            times = _times(f"{path} [{name}]", dataset, place, options.time_unit)
        return ArraySource(
            Hdf5Array(path, name, dataset),
            name=f"{path} [{name}]",
            fps=_rate(dataset),
            times_s=times,
            axes=options.axes,
            channel=options.channel,
            levels=options.levels,
            known_axes=known,
            skip_damaged=options.skip_damaged,
        )


def _chosen(path: Path, file: Any, dataset: str | None) -> Any:
    if dataset is not None:
        node = _node(file, dataset)
        found = node if _is_frames(node, 2) else _signal(node)
        if found is not None:
            return found
    else:
        for candidate in (_nexus_default(file), *(_node(file, name) for name in _AREA_DETECTOR)):
            if candidate is not None and _is_frames(candidate, 2):
                return candidate
    arrays = {node.name.lstrip("/"): node for node in _all(file, 2)}
    return arrays[chosen_array(path, {name: node.shape for name, node in arrays.items()}, dataset)]


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


def _axes(dataset: Any) -> str | None:
    """Return the letters of the axes that NXdata or the dataset's dimensions name, None if they name none."""
    names = [_text(name) for name in np.atleast_1d(dataset.parent.attrs.get("axes", []))]
    if len(names) != len(dataset.shape):
        names = [dimension.label for dimension in dataset.dims]
    return letters_of_names(tuple(str(name) for name in names))


def _times(name: str, dataset: Any, place: Layout, stated_unit: str | None) -> Times | None:
    """Return the times in s of the frames, None if the file has none."""
    axis = place.counting[0] if len(place.counting) == 1 else 0
    beside = dataset.parent
    axes = [_text(axis_name) for axis_name in np.atleast_1d(beside.attrs.get("axes", []))]
    named = axes[axis] if len(axes) == len(dataset.shape) else None
    columns = [(named, _node(beside, named)), (_STAMPS, _node(dataset.file, _STAMPS))]
    columns += [(key, _node(beside, key)) for key in sorted(beside) if key.casefold() in TIME_NAMES]
    for key, column in columns:
        if tuple(getattr(column, "shape", ())) != (place.n_frames,) or column.dtype.kind not in "iuf":
            continue
        unit = _text(column.attrs.get("units", column.attrs.get("unit")))
        if key == _STAMPS or named_times(str(key), unit is not None) or (key == named and unit_seconds(unit)):
            return seconds(f"{name} ({key})", column[:], unit, stated_unit=stated_unit)
    return None
