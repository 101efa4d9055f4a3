"""The formats of an export, by the ending of the file, and the function that writes each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError
from atomstream.server.export.growth import Growth
from atomstream.server.export.hdf5 import write_netcdf, write_nexus
from atomstream.server.export.pictures import write_gif, write_mp4
from atomstream.server.export.report import write_report
from atomstream.server.export.snapshot import write_png
from atomstream.server.export.table import write_csv
from atomstream.server.export.tiff import write_tiff


@dataclass(frozen=True, slots=True)
class Format:
    """``write(growth, path)`` writes the file; ``needs`` are modules that it imports."""

    content_type: str
    write: Callable[[Growth, Path], None]
    needs: tuple[str, ...] = ()
    without_pixels: Callable[[Growth, Path], None] | None = None
    """Writes the results alone; None where the format has nothing but pixels, or none."""
    raw_pixels: bool = False
    """True if all pixels are written without compression."""


FORMATS: Final = {
    "csv": Format("text/csv", write_csv),
    "h5": Format(
        "application/x-hdf5", write_nexus, ("h5py",), partial(write_nexus, pixels=False), raw_pixels=True
    ),
    "nxs": Format(
        "application/x-hdf5", write_nexus, ("h5py",), partial(write_nexus, pixels=False), raw_pixels=True
    ),
    "nc": Format(
        "application/x-netcdf", write_netcdf, ("h5py",), partial(write_netcdf, pixels=False), raw_pixels=True
    ),
    "tiff": Format("image/tiff", write_tiff, raw_pixels=True),
    "tif": Format("image/tiff", write_tiff, raw_pixels=True),
    "mp4": Format("video/mp4", write_mp4, ("av", "PIL")),
    "gif": Format("image/gif", write_gif, ("PIL",)),
    "png": Format("image/png", write_png, ("matplotlib",)),
    "pdf": Format("application/pdf", write_report, ("matplotlib",)),
}


def write_export(growth: Growth, ending: str, path: Path, *, pixels: bool = True) -> None:
    """Write ``growth`` to ``path`` in the format ``ending`` (a key of :data:`FORMATS`).

    Raises:
        ConfigError: there is no such format, a library for it is not installed, or the stream has no frames for it.
    """
    form = format_of(ending)
    write = form.write if pixels else form.without_pixels or form.write
    write(growth, path)


def format_of(ending: str) -> Format:
    """The format whose files have this ending.

    Raises:
        ConfigError: no format has this ending, or a library for it is not installed.
    """
    form = FORMATS.get(ending.lower())
    if form is None:
        raise ConfigError(f"There is no export as .{ending}; the formats are: {', '.join(FORMATS)}.")
    missing = [name for name in form.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"An export as .{ending} needs {', '.join(missing)}, which the server does not have: install "
            '"atomstream[export]" there.'
        )
    return form
