"""The images of a folder in their order: by natural order of the names (frame2 before frame10), folder by folder."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .ordering import ordered

logger = get_logger(__name__)

_KINDS: Final = {
    ".png": "PNG",
    ".bmp": "BMP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".pgm": "PGM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Kind of the images with an extension; different extensions of one kind may be mixed in a folder."""

_RECORDINGS: Final = frozenset(
    {
        ".npy",
        ".npz",
        ".avi",
        ".mp4",
        ".mkv",
        ".mov",
        ".wmv",
        ".h5",
        ".hdf5",
        ".nxs",
        ".seq",
        ".imm",
        ".raw",
        ".zarr",
    }
)
"""Files, and the folder of Zarr, that usually hold many frames."""

TIFF_SUFFIXES: Final = frozenset(suffix for suffix, kind in _KINDS.items() if kind == "TIFF")
IMAGE_SUFFIXES: Final = frozenset(_KINDS)


def images_in(folder: Path, order: str = "name") -> list[Path]:
    """Return the images of ``folder`` in their ``order`` (:func:`ordered`).

    If it holds none itself, they are those of the folders in it, to any depth. Hidden files (with a dot in front) and
    other files are left out. Raises :class:`ConfigError` if there are none, if they are of several kinds, and if there
    are images beside folders with images.
    """
    here, below = _own_images(folder), _images_below(folder)
    if here and below:
        raise ConfigError(
            f"{folder} holds {len(here)} images, and its folder {below[0].parent.relative_to(folder)} holds images as "
            "well: give the folder whose images are the recording, or move the others away"
        )
    images = here or below
    if not images:
        raise ConfigError(
            f"{folder} is empty: it holds no {', '.join(sorted(IMAGE_SUFFIXES))} files{_others(folder)}"
        )
    kinds = Counter(_KINDS[file.suffix.casefold()] for file in images)
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise ConfigError(
            f"{folder} holds images of several kinds ({found}); keep those of one camera in a folder"
        )
    _warn_of_recordings(folder)
    return ordered(images, order) if here or order != "name" else images


def _warn_of_recordings(folder: Path) -> None:
    """Warn of files beside the images that hold many frames: the images may be previews of them."""
    recordings = [file.name for file in folder.iterdir() if file.suffix.casefold() in _RECORDINGS]
    if recordings:
        logger.warning(
            "%s: the images are read, and not the recordings beside them (%s). If the images are previews, give the "
            "recording by its name",
            folder, ", ".join(sorted(recordings)[:5]),
        )  # fmt: skip


def _own_images(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.casefold() in IMAGE_SUFFIXES and file.is_file()]
    return ordered([file for file in files if not file.name.startswith(".")])


def _images_below(folder: Path) -> list[Path]:
    images: list[Path] = []
    for child in ordered([child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]):
        if not child.name.startswith("."):
            images += _own_images(child) + _images_below(child)
    return images


def _others(folder: Path) -> str:
    """Describe what a folder without images holds, if it is a recording of another kind."""
    found = Counter(os.path.splitext(file.name)[1].casefold() for file in folder.iterdir() if file.is_file())
    found.pop("", None)
    if not found:
        return ""
    listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.items())[:5])
    return f" (but {listed}, of several kinds or none that is read: give the files by their names, several in a row)"
