"""The kind of a file by its first bytes, for the message about a file whose ending is another one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_STARTS: Final = (
    (b"\x89HDF\r\n\x1a\n", "HDF5", ".h5"),
    (b"II*\0", "TIFF", ".tif"),
    (b"MM\0*", "TIFF", ".tif"),
    (b"II+\0", "BigTIFF", ".tif"),
    (b"MM\0+", "BigTIFF", ".tif"),
    (b"\x89PNG\r\n\x1a\n", "PNG", ".png"),
    (b"\xff\xd8\xff", "JPEG", ".jpg"),
    (b"BM", "BMP", ".bmp"),
    (b"GIF8", "GIF", ".gif"),
    (b"\x93NUMPY", "an array of numpy", ".npy"),
    (b"\x1a\x45\xdf\xa3", "Matroska or WebM", ".mkv"),
    (b"OggS", "Ogg", ".ogv"),
    (b"YUV4MPEG2", "YUV4MPEG2", ".y4m"),
    (b"P5", "PGM", ".pgm"),
    (b"SIMPLE  =", "FITS", ""),
    (b"CDF", "NetCDF 3", ""),
    (b"MATLAB 5.0", "a MATLAB file before 7.3", ""),
    (b"%PDF", "PDF", ""),
    (b"PK\x03\x04", "a ZIP archive", ""),
    (b"\x1f\x8b", "packed by gzip", ""),
)
"""First bytes, the kind of file that begins with them, and the ending under which such files are read here; empty: they
are not read."""

_SHORTEST: Final = 64
"""Bytes of a file from which on two bytes at its beginning are taken for a signature."""


def signature(path: Path) -> tuple[str, str] | None:
    """Return the kind that the first bytes of a file stand for, and its ending here (empty: none); None if unknown."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(640)
    except OSError:
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI", ".avi"
    if head[4:8] == b"ftyp":
        return "MP4 or MOV", ".mp4"
    if head[512:520] == b"\x89HDF\r\n\x1a\n":
        return "HDF5 (as MATLAB 7.3 writes it)", ".h5"
    for start, kind, suffix in _STARTS:
        if head.startswith(start) and (len(start) > 2 or size >= _SHORTEST):
            return kind, suffix
    return None


def content_note(path: Path, suffixes: frozenset[str]) -> str:
    """Return the part of a message that states what a file seems to contain; empty if it is not known.

    ``suffixes`` are those of the reader that was used, or would be: its own kind is not worth a note.
    """
    found = signature(path)
    if found is None or found[1] in suffixes:
        return ""
    kind, suffix = found
    if suffix:
        return f" (its first bytes are those of {kind}: give it the ending {suffix} if that is what it is)"
    return f" (its first bytes are those of {kind}, which is not read here: convert it first)"
