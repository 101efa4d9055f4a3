"""Chooses the array of frames in a file that contains several arrays: .npz, Zarr, HDF5."""

from __future__ import annotations

from collections.abc import Mapping

from atomstream.errors import ConfigError

DEFAULT = "frames"


def chosen_array(path: object, shapes: Mapping[str, tuple[int, ...]], dataset: str | None) -> str:
    """Return the name of the array to read, of those with these ``shapes``.

    It is ``dataset`` if that is given, else ``frames``, else the only one of three or more axes, else the only one.
    Raises :class:`ConfigError` with the names if there is no such array, or if several could be meant.
    """
    if dataset is not None:
        wanted = dataset.strip("/")
        if wanted in shapes:
            return wanted
        raise ConfigError(f"{path} has no array {dataset!r}; choose a dataset of {_listed(shapes)}")
    if DEFAULT in shapes:
        return DEFAULT
    for least in (3, 0):
        large = [name for name, shape in shapes.items() if len(shape) >= least]
        if len(large) == 1:
            return large[0]
    if not shapes:
        raise ConfigError(f"{path} has no array that could be frames")
    raise ConfigError(
        f"{path} has no array {DEFAULT!r}, and several could be meant; choose a dataset of {_listed(shapes)} "
        "(--dataset)"
    )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    names = sorted(shapes, key=lambda name: (-len(shapes[name]), name))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(names[:20]) + more) or "none"
