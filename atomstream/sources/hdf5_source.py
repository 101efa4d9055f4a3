"""Frames from HDF5 and NeXus files; the layout of areaDetector and the signal of an NXdata group are found."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .arrays import ArraySource
from .axes import Layout, layout, letters_of_names
from .datasets import chosen_array
from .frame_source import EmptySourceError, Times
from .hdf5_array import Hdf5Array, Hdf5Pictures, open_file
from .hdf5_contents import hdf5_arrays, image_pixels, pictures_of, scaling_of
from .options import ReadOptions
from .times import TIME_NAMES, named_times, seconds, unit_seconds, written

logger = get_logger(__name__)

HDF5_SUFFIXES: Final = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5", ".he5", ".nc", ".nc4", ".mat"})

_AREA_DETECTOR: Final = ("entry/data/data", "entry/instrument/detector/data")
_STAMPS: Final = "entry/instrument/NDAttributes/NDArrayTimeStamp"
"""Time of each frame in s, in files of areaDetector (since 1990-01-01)."""


def open_hdf5(path: Path, options: ReadOptions) -> ArraySource:
    """Open the frames of an HDF5 file: the dataset, the signal of NeXus, areaDetector's, ``frames`` or the only stack.

    The times of the frames are those of the first axis of NXdata, of areaDetector's NDArrayTimeStamp, or of an array
    ``time`` beside the frames. An attribute ``fps`` is the nominal rate.
    """
    with open_file(path) as file:
        if file.swmr_mode and not options.growing:
            logger.warning(
                "%s is being written by another program: the frames that it has now are read, and no later ones "
                "(--follow reads those as well)",
                path,
            )
        found = _chosen(path, file, options.dataset)
        if found.pictures:
            return _open_pictures(path, found, options)
        dataset, label = found.node, f"{path} [{found.name}]"
        _check_order(label, dataset, options.axes)
        known = _axes(found)
        place = layout(label, dataset.shape, options.axes, known=known)
        times = None if options.ignore_times else _times(label, found, place, options)
        array = Hdf5Array(path, found.name, dataset)
        if times is not None and len(times) < place.n_frames:  # with options.growing only
            array.shape = (len(times), *array.shape[1:])
        source = ArraySource.of_file(
            array,
            label,
            options,
            fps=_rate(found),
            times_s=times,
            pixels=image_pixels(label, dataset, place.n_samples),
            known_axes=known,
            scaling=scaling_of(found.name, found.group, dataset),
        )
        source.frames_per_piece = array.piece
        source.grows = source.grows and not dataset.is_virtual
        source.is_shared = file.swmr_mode
        return source


def _open_pictures(path: Path, found: _Found, options: ReadOptions) -> ArraySource:
    """Open datasets that are one picture each; their times are those of an array ``time`` beside them."""
    label = f"{path} [{found.pictures[0]} to {found.pictures[-1]}]"
    place = layout(label, (len(found.pictures), *found.node.shape), options.axes)
    times = None if options.ignore_times else _times(label, found, place, options)
    source = ArraySource.of_file(
        Hdf5Pictures(path, found.pictures, found.node),
        label,
        options,
        fps=_rate(found),
        times_s=times,
        pixels=image_pixels(label, found.node, 1),
        scaling=scaling_of(found.name, found.group, found.node),
    )
    source.grows = False
    return source


@dataclass(frozen=True, slots=True)
class _Found:
    """A dataset by its path in the opened file; links to other files are followed."""

    name: str
    node: Any
    group: Any
    """The group that contains the dataset, or the link to it."""
    pictures: tuple[str, ...] = ()
    """The paths of the datasets that are one picture each, in their order; ``node`` is the first one."""


def _found(file: Any, node: Any, name: str | None = None) -> _Found:
    path = (node.name if name is None else name).strip("/")
    return _Found(path, node, file[path.rpartition("/")[0] or "/"])


def _chosen(path: Path, file: Any, dataset: str | None) -> _Found:
    if dataset is not None:
        node = _node(file, dataset)
        if _is_frames(node, 2):
            return _found(file, node, dataset)
        signal = _signal(dataset, node)
        if signal is not None:
            return _found(file, signal[1], signal[0])
        if hasattr(node, "keys") and (pictures := _pictures(file, dataset.strip("/"), node)) is not None:
            return pictures
    else:
        areas = [(name, _node(file, name)) for name in _AREA_DETECTOR]
        for candidate in (_nexus_default(file), *areas):
            if candidate is not None and _is_frames(candidate[1], 2):
                return _found(file, candidate[1], candidate[0])
    arrays, dead = hdf5_arrays(file)
    if dataset is None and not dead and (pictures := _pictures(file, "", file, arrays)) is not None:
        return pictures
    try:
        name = chosen_array(path, {name: node.shape for name, node in arrays.items()}, dataset)
    except ConfigError as error:
        raise ConfigError(f"{error}{_dead_links(dead)}") from None
    return _found(file, arrays[name], name)


def _pictures(file: Any, path: str, group: Any, arrays: dict[str, Any] | None = None) -> _Found | None:
    """Return the datasets of a group that are one picture each; None if it has others, or broken links."""
    dead: dict[str, str] = {}
    if arrays is None:
        arrays, dead = hdf5_arrays(group)
    names = [] if dead else pictures_of(arrays)
    if not names:
        return None
    paths = tuple(f"{path}/{name}".lstrip("/") for name in names)
    return replace(_found(file, arrays[names[0]], paths[0]), pictures=paths)


def _dead_links(dead: dict[str, str]) -> str:
    if not dead:
        return ""
    listed = ", ".join(f"{name} to {target}" for name, target in sorted(dead.items())[:5])
    more = f" and {len(dead) - 5} more" if len(dead) > 5 else ""
    return f". These links in it lead to nothing: {listed}{more}; a file that is linked must lie where the link says"


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


def _nexus_default(file: Any) -> tuple[str, Any] | None:
    """Return the array that the attributes ``default`` and ``signal`` of a NeXus file lead to, with its path."""
    path, node = "", file
    for _ in range(8):  # root, entry, data; files may nest entries
        signal = _signal(path, node)
        if signal is not None:
            return signal
        name = _text(node.attrs.get("default", ""))
        following = _node(node, name)
        if following is None or not hasattr(following, "keys"):
            break
        path, node = f"{path}/{name}", following
    signals = [
        signal
        for entry_path, entry in _groups("", file)
        for group_path, group in ((entry_path, entry), *_groups(entry_path, entry))
        if (signal := _signal(group_path, group)) is not None and _is_frames(signal[1], 3)
    ]
    unique = {signal[1].name: signal for signal in signals}
    return next(iter(unique.values())) if len(unique) == 1 else None


def _groups(path: str, group: Any) -> list[tuple[str, Any]]:
    nodes = [(f"{path}/{name}", _node(group, name)) for name in group]
    return [(name, node) for name, node in nodes if hasattr(node, "keys")]


def _signal(path: str, group: Any) -> tuple[str, Any] | None:
    """Return the signal of NXdata with its path, None for other groups."""
    if not hasattr(group, "keys"):
        return None
    name = _text(group.attrs.get("signal", ""))
    signal = _node(group, name)
    if signal is not None and _is_frames(signal, 2):
        return f"{path}/{name}", signal
    for name in group:  # before 2014 the dataset itself had the attribute
        node = _node(group, name)
        if _is_frames(node, 2) and str(_text(node.attrs.get("signal", ""))) == "1":
            return f"{path}/{name}", node
    return None


def _rate(found: _Found) -> float | None:
    for node in (found.node, found.group, found.group.file):
        value = node.attrs.get("fps")
        if isinstance(value, int | float | np.number) and value > 0:
            return float(value)
    return None


def _axes(found: _Found) -> str | None:
    """Return the letters of the axes that NXdata or the dataset's dimensions name, None if they name none."""
    names = _axis_names(found)
    if len(names) != len(found.node.shape):
        names = [dimension.label or _scale_name(dimension) for dimension in found.node.dims]
    return letters_of_names(tuple(str(name) for name in names))


def _axis_names(found: _Found) -> list[Any]:
    """Return the names of the axes that the group NXdata states, or, as before 2014, its signal ("y:x:time")."""
    for owner in (found.group, found.node):
        stated = np.atleast_1d(owner.attrs.get("axes", []))
        if stated.dtype.kind in "iuf":
            continue
        names = [_text(name) for name in stated]
        if len(names) == 1 and len(found.node.shape) > 1:
            names = [name for name in re.split(r"[:,\[\]\s]+", str(names[0])) if name]
        if len(names) == len(found.node.shape):
            return names
    return []


def _scale_name(dimension: Any) -> str:
    """Return the name of the only dimension scale of an axis, as NetCDF names its axes; empty without one."""
    scales = dimension.keys()
    return str(scales[0]) if len(scales) == 1 else ""


def _check_order(label: str, dataset: Any, axes: str | None) -> None:
    if axes is None and "MATLAB_class" in dataset.attrs:
        raise ConfigError(
            f"{label} was written by MATLAB, which stores the axes of a variable in reversed order: state them by "
            "axes (--axes), such as NXY for a variable of rows, columns and frames"
        )


def _times(name: str, found: _Found, place: Layout, options: ReadOptions) -> Times | None:
    """Return the times in s of the frames, None if the file has none.

    In a file that is growing these may be the times of the first frames only: the others are not written yet.
    """
    axis = place.counting[0] if len(place.counting) == 1 else 0
    beside = found.group
    axes = _axis_names(found)
    named = axes[axis] if len(axes) == len(found.node.shape) else None
    columns = [(named, _node(beside, named)), (_STAMPS, _node(beside.file, _STAMPS))]
    columns += [(key, _node(beside, key)) for key in sorted(beside) if key.casefold() in TIME_NAMES]
    for key, column in columns:
        shape = tuple(getattr(column, "shape", ()))
        fits = shape == (place.n_frames,) or (options.growing and len(shape) == 1 and place.counting == (0,))
        if not fits or column.dtype.kind not in "iuf":
            continue
        unit = _text(column.attrs.get("units", column.attrs.get("unit")))
        if key == _STAMPS or named_times(str(key), unit is not None) or (key == named and unit_seconds(unit)):
            values = column[: place.n_frames]
            if options.growing:
                values = written(values, column.fillvalue)
                if not len(values):
                    raise EmptySourceError(f"{name} is empty: no frame has a time")
            return seconds(f"{name} ({key})", values, unit, stated_unit=options.time_unit)
    return None
