"""The Zarr v3 group ``frames.zarr``: its metadata documents and the arrays beside ``frames``.

zarr-python makes each array's document once; from then on only ``shape`` and attributes move. Each document
is replaced atomically, arrays first and the group's, which holds the consolidated copy of all, last: so
whoever opens the group sees one moment, in which all arrays along ``time`` have one length. (xarray refuses
a group whose lengths differ.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np

from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.column import COLUMN_CHUNK, Column, Values
from atomstream.server.archive.records import Geometry
from atomstream.shard import DtypeName

Document: TypeAlias = dict[str, Any]
FRAMES: Final = "frames"
DOCUMENT: Final = "zarr.json"
COLUMN_DTYPES: Final = ("float64", "float32", "int64", "int32")
RESULT: Final = {"source": "analysis"}
"""Attributes that tell an array of results, of which there are dozens, from the archive's own."""


class ZarrGroup:
    """Documents and columns of one group. Not thread-safe: the archive lets one thread write at a time.

    ``lengths`` are the present lengths of the dimensions; :meth:`publish` makes all arrays follow. Of the arrays of
    results and of those in ``later`` only the group's document does at once; their own follow with
    :meth:`write_document` or :meth:`sync`.
    """

    def __init__(self, folder: Path, files: ArchiveFiles, later: frozenset[str] = frozenset()) -> None:
        self.folder = folder
        self._later = later
        self.shards = folder / FRAMES / "c"
        """Where the shard of chunk k is ``k/0/0``."""
        self._files = files
        self.documents: dict[str, Document] = {}
        self.lengths: dict[str, int] = {}
        self._columns: dict[str, Column] = {}
        self._on_disk: dict[str, bytes] = {}
        self.published_at = -1e9
        """When documents were last written, on the monotonic clock in seconds."""

    def load(self) -> None:
        """Read the documents of all arrays there are, foreign ones included.

        Where an array's own can't be read, the group's copy of it stands in, if there is one.
        """
        top = self.folder / DOCUMENT
        self._on_disk[""] = top.read_bytes() if top.exists() else b""
        own = {path.parent.name: path.read_bytes() for path in self.folder.glob(f"*/{DOCUMENT}")}
        found = {name: document for name, raw in own.items() if (document := _parse(raw))}
        for name, document in {**_consolidated_in(self._on_disk[""]), **found}.items():
            if (self.folder / name).is_dir():
                self._adopt(name, document)
        self._on_disk.update((name, own[name]) for name in found)

    def _adopt(self, name: str, document: Document) -> None:
        self.documents[name] = document
        dimension = _column_dimension(document)
        if dimension is not None:
            self.lengths[dimension] = max(self.lengths.get(dimension, 0), document["shape"][0])
            fill = float(document["fill_value"])  # "NaN" is a float's text too
            self._columns[name] = Column(
                self.folder / name, self._files, np.dtype(document["data_type"]), fill
            )

    def geometry(self) -> Geometry | None:
        """What the document of ``frames`` says, None where there is none yet."""
        document = self.documents.get(FRAMES)
        if document is None:
            return None
        chunk, height, width = document["chunk_grid"]["configuration"]["chunk_shape"]
        return Geometry(chunk, height, width, cast(DtypeName, document["data_type"]))

    def add_frames(self, geometry: Geometry) -> None:
        """Make the array ``frames``, still empty, durably: it comes before the first shard.

        Raises:
            OSError: the disk's.
        """
        shard = (geometry.chunk_size, geometry.height, geometry.width)
        document = _make_document(
            (0, *shard[1:]), np.dtype(geometry.dtype), (1, *shard[1:]), shard, 0, ("time", "y", "x")
        )
        self._files.file_system.make_folder(self.shards, durable=False)
        self._write(FRAMES, document)
        self._files.file_system.sync_folders(self.folder / FRAMES, self.folder.parent)
        self.documents[FRAMES] = document

    def column(
        self, name: str, dimension: str, dtype: str, fill: float, attributes: Mapping[str, Any] | None = None
    ) -> Column:
        """The column of that name, made if need be; it becomes visible with the next :meth:`publish`."""
        if name not in self._columns:
            document = _make_document(
                (0,), np.dtype(dtype), (COLUMN_CHUNK,), None, fill, (dimension,), attributes
            )
            self._columns[name] = Column(self.folder / name, self._files, np.dtype(dtype), fill)
            self.documents[name] = document
            self.lengths.setdefault(dimension, 0)
        return self._columns[name]

    def has(self, name: str) -> bool:
        """Whether there is a column of that name."""
        return name in self._columns

    def is_result(self, name: str) -> bool:
        """Whether the array of that name holds results of the analysis."""
        return bool(RESULT.items() <= self.documents[name].get("attributes", {}).items())

    def _is_later(self, name: str) -> bool:
        return name in self._later or self.is_result(name)

    def results(self) -> dict[str, Column]:
        """The columns of results, by name."""
        # Copied first, for another thread may be making a column.
        return {name: column for name, column in tuple(self._columns.items()) if self.is_result(name)}

    def stored(self, name: str) -> Iterator[tuple[int, Values]]:
        """(start, values) of what an existing column holds."""
        return self._columns[name].stored()

    def publish(self, attributes: Mapping[str, Any]) -> None:
        """Have every array's length and the group's attributes on the disk; unchanged documents are not touched.

        The arrays beside ``frames`` have their new length in the group's document alone, which readers go by:
        to replace dozens of files for each chunk would hold its answer up.

        Raises:
            OSError: the disk's; publishing again is harmless.
        """
        for name in self.documents:
            self._resize(name)
        for name in sorted(self.documents, key=lambda name: name == FRAMES):
            if not self._is_later(name):
                self._write(name, self.documents[name])
        self._write("", self._group_document(attributes))
        self.published_at = time.monotonic()

    def sync_files(self, name: str, paths: Iterable[Path]) -> None:
        """Have these files of an existing column on the disk."""
        self._columns[name].sync(paths)

    def write_document(self, name: str) -> None:
        """Have an array's own document on the disk as it is now."""
        self._resize(name)
        self._write(name, self.documents[name])

    def sync(self) -> None:
        """Have the documents that follow later, and all documents' renames, on the disk as well."""
        for name in filter(self._is_later, self.documents):
            self.write_document(name)
        for name in ("", *self.documents):
            self._files.file_system.sync_folder(self.folder / name)

    def _resize(self, name: str) -> None:
        if name == FRAMES:
            self.documents[FRAMES]["shape"][0] = self.lengths.get("time", 0)
        elif name in self._columns:
            dimension = self.documents[name]["dimension_names"][0]
            self.documents[name]["shape"] = [self.lengths[dimension]]

    def _group_document(self, attributes: Mapping[str, Any]) -> Document:
        # Inline consolidated metadata is zarr-python's convention; readers that don't know it may ignore it.
        arrays = dict(sorted(self.documents.items()))
        consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
        return {
            "attributes": {key: value for key, value in attributes.items() if value is not None},
            "zarr_format": 3,
            "consolidated_metadata": consolidated,
            "node_type": "group",
        }

    def _write(self, name: str, document: Document) -> None:
        raw = json.dumps(document, allow_nan=False).encode()
        if self._on_disk.get(name) == raw:
            return
        place = self.folder / name / DOCUMENT
        self._files.file_system.make_folder(place.parent, durable=False)
        self._files.write_atomic(place, raw)
        self._on_disk[name] = raw


def _make_document(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    fill: float,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, Any] | None = None,
) -> Document:
    # Lazily, for it takes 0.3 s, and only a stream's first chunk needs it.
    from zarr import create_array
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    create_array(
        MemoryStore(files),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=ZstdCodec(level=1, checksum=True) if shards else None,
        filters=None,
        fill_value=fill,
        dimension_names=dimensions,
        attributes=dict(attributes or {}),
        zarr_format=3,
    )
    return cast(Document, json.loads(files[DOCUMENT].to_bytes()))


def _parse(raw: bytes) -> Document | None:
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    return document if _is_array(document) else None


def _is_array(document: Any) -> bool:
    return isinstance(document, dict) and document.get("node_type") == "array"


def _consolidated_in(raw: bytes) -> dict[str, Document]:
    try:
        arrays = json.loads(raw)["consolidated_metadata"]["metadata"]
        return {name: document for name, document in arrays.items() if _is_array(document)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _column_dimension(document: Document) -> str | None:
    """The dimension of an array made by :meth:`ZarrGroup.column`; None for any other array."""
    names = document.get("dimension_names") or []
    grid = document.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    plain = [codec.get("name") for codec in document.get("codecs", [])] == ["bytes"]
    ours = plain and grid == [COLUMN_CHUNK] and document.get("data_type") in COLUMN_DTYPES
    return names[0] if ours and len(names) == 1 else None
