"""Small arrays of a stream's Zarr group that are replaced as a whole: marks, segments, regions, calibration.

They duplicate records of the server, so that a copy of the archive is complete without them. They are written
beside the commits of chunks, never by them. Numbers are float64, texts are Zarr's variable-length strings.

Each file has ``ROWS`` values, so a reader that has an older length still finds a file of the right size. An array that
became shorter keeps files behind its end, which no reader looks at.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.zarr_group import make_document

ROWS: Final = 1024
"""Values in a file."""


@dataclass(frozen=True, slots=True)
class SmallArray:
    """``values`` along ``dimension``; None and NaN are values that are not known.

    Texts if ``unit`` is None, numbers in ``unit`` otherwise.
    """

    name: str
    dimension: str
    values: Sequence[float | None] | Sequence[str]
    long_name: str
    unit: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.unit is None

    def files(self) -> Iterator[bytes]:
        """The contents of the files, one after the other."""
        for start in range(0, len(self.values), ROWS):
            part = list(self.values[start : start + ROWS])
            missing = ROWS - len(part)
            if self.is_text:
                texts = [str(text).encode("utf-8", "replace") for text in part] + [b""] * missing
                yield struct.pack("<I", ROWS) + b"".join(struct.pack("<I", len(t)) + t for t in texts)
            else:
                numbers = [math.nan if value is None else value for value in part] + [math.nan] * missing
                yield np.array(numbers, dtype="<f8").tobytes()


class SmallArrays:
    """Writes :class:`SmallArray` into a group. Blocks; thread-safe."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._written: dict[Path, bytes] = {}
        self._unsynced: set[Path] = set()

    def write(self, arrays: Iterable[SmallArray]) -> None:
        """Replace these arrays; readers see them with the next write of the group's document.

        An array is created when it first has a value that is not empty.

        Raises:
            OSError: from the disk; writing again is harmless. ArchiveDeletedError: the stream was deleted.
        """
        group = self._index.group
        with self._lock:
            for array in arrays:
                if array.name not in group.documents and not any(_is_known(value) for value in array.values):
                    continue
                for number, content in enumerate(array.files()):
                    self._write_file(self._path(array, number), content)
                with self._index.writing:
                    self._describe(array)

    def _path(self, array: SmallArray, number: int) -> Path:
        return self._index.group.folder / array.name / "c" / str(number)

    def _write_file(self, path: Path, content: bytes) -> None:
        if self._written.get(path) == content:
            return
        files = self._index.group.files
        files.check_not_deleted()
        files.clear_way(path)
        files.file_system.make_folder(path.parent, durable=False)
        files.write_atomic(path, content)
        self._written[path] = content
        self._unsynced.add(path)

    def _describe(self, array: SmallArray) -> None:
        group = self._index.group
        if array.name not in group.documents:
            attributes = {"long_name": array.long_name}
            if array.unit is not None:
                attributes["units"] = array.unit
            group.documents[array.name] = make_document(
                (0,),
                "string" if array.is_text else "float64",
                (ROWS,),
                None,
                "" if array.is_text else math.nan,
                (array.dimension,),
                attributes,
            )
        group.documents[array.name]["shape"] = [len(array.values)]

    def sync(self) -> None:
        """Make all writes durable.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        disk = self._index.group.files.file_system
        with self._lock:
            for path in tuple(self._unsynced):
                disk.sync_file(path)
                disk.sync_folders(path.parent, self._index.group.folder)
                self._unsynced.discard(path)


def check_content(document: Mapping[str, Any], content: bytes) -> None:
    """Raises ValueError if a file of a small array is damaged."""
    if document.get("data_type") != "string":
        if len(content) != 8 * ROWS:
            raise ValueError(f"it has {len(content)} bytes, not {8 * ROWS}")
        return
    at, texts = 4, 0
    while at + 4 <= len(content):
        at += 4 + struct.unpack_from("<I", content, at)[0]
        texts += 1
    if content[:4] != struct.pack("<I", ROWS) or (at, texts) != (len(content), ROWS):
        raise ValueError("its texts do not fill it")


def is_small(document: Mapping[str, Any]) -> bool:
    """Whether a document describes an array of this module."""
    return bool(document.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape") == [ROWS])


def _is_known(value: float | str | None) -> bool:
    return bool(value) if isinstance(value, str) else value is not None and not math.isnan(value)
