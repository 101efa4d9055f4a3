"""What an HDF5 file contains: its arrays, also those of linked files, and what they state about their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError

from .ordering import natural_keys, words_around
from .pixels import PixelFormat
from .scaling import scaling_text, stated_scaling

_MOST_ARRAYS: Final = 200_000
"""Arrays that are looked at in a file, some of which has one for each frame; one with more is refused."""


def hdf5_arrays(file: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return all datasets of two or more axes by their paths, and the broken links with their targets.

    Links to other files are followed, as a detector's main file has them. A dataset that several paths lead to is
    listed once, by the first of them that is not a link, else by the first.
    """
    h5py = _h5py()
    arrays: dict[str, Any] = {}
    dead: dict[str, str] = {}
    seen: set[Any] = set()
    waiting: list[tuple[str, Any]] = [("", file)]
    linked: list[tuple[str, Any]] = []
    while waiting or linked:
        path, group = waiting.pop() if waiting else linked.pop()
        identity = _identity(group)
        if identity in seen:
            continue
        if len(arrays) >= _MOST_ARRAYS:
            raise ConfigError(
                f"{path or 'The file'} has more than {_MOST_ARRAYS} arrays: choose one, or a group of them (--dataset)"
            )
        seen.add(identity)
        if not hasattr(group, "keys"):
            arrays[path] = group
            continue
        for name in group:
            inner = f"{path}/{name}".lstrip("/")
            link = group.get(name, getlink=True)
            try:
                node = group[name]
            except (KeyError, OSError, ValueError):
                dead[inner] = _target(link)
                continue
            if hasattr(node, "keys") or _is_array(node):
                (waiting if isinstance(link, h5py.HardLink) else linked).append((inner, node))
    return arrays, dead


def pictures_of(arrays: Mapping[str, Any]) -> list[str]:
    """Return the paths of arrays that are one picture each, in their order as people count; empty if there are none.

    That is so if all arrays of two or more axes are pictures (H, W) of one size and type, whose paths differ in their
    numbers only (``frame_1``, ``frame_2``, or ``1/image``, ``2/image``), beside pictures of other sizes with other
    paths.
    """
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for path, node in arrays.items():
        if len(node.shape) > 2:
            return []
        kinds.setdefault((words_around(path), node.shape, str(node.dtype)), []).append(path)
    several = [(kind, paths) for kind, paths in kinds.items() if len(paths) > 1]
    if len(several) != 1 or any(kind[1] == several[0][0][1] for kind in kinds if kind != several[0][0]):
        return []
    paths = several[0][1]
    keys = dict(zip(paths, natural_keys(paths), strict=True))
    return sorted(paths, key=lambda path: (keys[path], path))


def scaling_of(name: str, group: Any, dataset: Any) -> str:
    """Return what attributes of a dataset, or arrays beside the signal of NXdata, state about its values.

    See :func:`stated_scaling`; NeXus has ``<signal>_scaling_factor`` and ``<signal>_offset`` in the group.
    """
    key = name.rpartition("/")[2]
    beside = {
        f"{key}_{part}": (_value(group, f"{key}_{part}"), neutral)
        for part, neutral in (("scaling_factor", 1.0), ("offset", 0.0))
    }
    return ", ".join(text for text in (stated_scaling(dataset.attrs), scaling_text(**beside)) if text)


def _value(group: Any, name: str) -> Any:
    try:
        return group[name][()]
    except (KeyError, ValueError, TypeError, OSError):
        return None


def _identity(node: Any) -> tuple[str, Any]:
    h5py = _h5py()
    return node.file.filename, h5py.h5o.get_info(node.id).addr


def _is_array(node: Any) -> bool:
    return getattr(getattr(node, "dtype", None), "kind", "") in set("buifcV") and len(node.shape or ()) >= 2


def _target(link: Any) -> str:
    file = getattr(link, "filename", "")
    inside = getattr(link, "path", "?")
    return f"{inside} of {file}" if file else str(inside)


def image_pixels(name: str, dataset: Any, samples: int) -> PixelFormat | None:
    """Return what the attributes of the HDF5 image specification state about the pixels; None if there are none.

    Source: "HDF5 Image and Palette Specification", The HDF Group: CLASS is IMAGE, IMAGE_SUBCLASS is how the samples
    are meant, IMAGE_WHITE_IS_ZERO inverts them, PALETTE refers to the colours of indices.
    """
    attributes = dataset.attrs
    if _text(attributes.get("CLASS")) != "IMAGE":
        return None
    kind = _text(attributes.get("IMAGE_SUBCLASS"))
    dtype = np.dtype(dataset.dtype)
    if kind == "IMAGE_INDEXED":
        return PixelFormat(dtype, "palette", palette=_palette(dataset))
    if kind == "IMAGE_TRUECOLOR" and samples == 3:
        return PixelFormat(dtype, "rgb", samples=3)
    inverted = np.atleast_1d(attributes.get("IMAGE_WHITE_IS_ZERO", 0))
    if inverted.size and bool(inverted[0]):
        return PixelFormat(dtype, "white_is_zero", samples=samples)
    return None


def _palette(dataset: Any) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    h5py = _h5py()
    references = np.atleast_1d(dataset.attrs.get("PALETTE", []))
    if not len(references) or not isinstance(references[0], h5py.Reference):
        return None
    colours = np.asarray(dataset.file[references[0]])
    return colours.astype(np.uint8) if colours.ndim == 2 and colours.shape[1] == 3 else None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _h5py() -> Any:
    from .frame_source import optional_package

    return optional_package("h5py", "hdf5", "Reading HDF5")
