"""The Zarr v3 group ``frames.zarr``: its metadata documents (``zarr.json``) and its one-dimensional arrays.

zarr-python creates each array's document once; after that only ``shape`` and attributes change. Each document is
replaced atomically. The group's document, with the consolidated copy of all others, is written last: so a reader that
opens the group sees one consistent state, with one length of all arrays along ``time``. (xarray refuses a group
whose lengths differ.)
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import msgspec
import numpy as np

from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.column import COLUMN_CHUNK, Column, Values
from atomstream.server.archive.records import Geometry
from atomstream.shard import DtypeName
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain, refuse_linked_folders

Document: TypeAlias = dict[str, Any]
FRAMES: Final = "frames"
DOCUMENT: Final = "zarr.json"
FRAMES_ABOUT: Final = {"long_name": "RHEED frames", "units": "counts"}
COLUMN_DTYPES: Final = ("float64", "float32", "int64", "int32")
_MAX_SIZE: Final = 1 << 53
RESULT: Final = {"source": "analysis"}
"""Attributes that mark an array of analysis results, as opposed to the archive's own arrays."""


class ZarrGroup:
    """Documents and columns of one group. Not thread-safe: the archive serialises the writers.

    ``lengths`` are the present lengths of the dimensions; :meth:`publish` writes them into the documents. For arrays
    of results and those in ``later`` it writes only the group's document; their own documents are written by
    :meth:`write_document` or :meth:`sync`.
    """

    def __init__(self, folder: Path, files: ArchiveFiles, later: frozenset[str] = frozenset()) -> None:
        self.folder = folder
        self._later = later
        self.shards = folder / FRAMES / "c"
        """The folder of the shards; that of chunk k is ``k/0/0``."""
        self.files = files
        self.documents: dict[str, Document] = {}
        self.lengths: dict[str, int] = {}
        self._columns: dict[str, Column] = {}
        self._on_disk: dict[str, bytes] = {}
        self.published_at = -1e9
        """Time of the last write of the documents, in seconds of the monotonic clock."""

    def load(self) -> None:
        """Read the documents of all arrays, those of other programs included.

        For an array whose own document can't be read, the copy in the group's document is used, if there is one.
        """
        top = self.folder / DOCUMENT
        self._on_disk[""] = _read(top)
        copies = _consolidated_in(self._on_disk[""])
        if copies is None:
            self.files.note_damage(top, "it can't be read; it is written again")
            copies = {}
        own = {path.parent.name: _read(path) for path in self.folder.glob(f"*/{DOCUMENT}")}
        for name in {**copies, **own}:
            if name and (self.folder / name).is_dir():
                refuse_linked_folders(self.folder / name / "c", self.folder)
                document = _parse(own.get(name, b""))
                if document is not None and self._adopt(name, document):
                    self._on_disk[name] = own[name]
                    continue
                if name in own:
                    self.files.note_damage(self.folder / name / DOCUMENT, "it can't be read")
                if name in copies:
                    self._adopt(name, copies[name])

    def _adopt(self, name: str, document: Document) -> bool:
        """Take over an array's document; False if it is not valid, and the array is left out."""
        try:
            _check(document)
            self._add(name, document)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError):
            self.drop(name)
            return False
        return True

    def reload(self, name: str) -> None:
        """Read the document of one array again; a damaged one changes nothing."""
        raw = _read(self.folder / name / DOCUMENT)
        document = _parse(raw)
        if document is not None and self._adopt(name, document):
            self._on_disk[name] = raw

    def drop(self, name: str) -> None:
        """Drop the loaded document of an array, so that a new one is written; its files stay."""
        self.documents.pop(name, None)
        self._columns.pop(name, None)
        self._on_disk.pop(name, None)

    def remove_orphans(self, name: str) -> bool:
        """Remove the files of a column that has no document; True if there were any.

        Their content can't be trusted: values that a power cut left unwritten may read as zeros.
        """
        folder = self.folder / name / "c"
        if self.has(name) or not folder.is_dir():
            return False
        refuse_linked_folders(folder, self.folder)
        orphans = [path for path in folder.iterdir() if path.is_file()]
        for path in orphans:
            self.files.file_system.unlink(path)
        return bool(orphans)

    def _add(self, name: str, document: Document) -> None:
        self.documents[name] = document
        dimension = _column_dimension(document)
        if dimension is not None:
            self.lengths[dimension] = max(self.lengths.get(dimension, 0), document["shape"][0])
            fill = float(document["fill_value"])  # Zarr's text "NaN" is read as NaN
            self._columns[name] = Column(
                self.folder / name, self.files, np.dtype(document["data_type"]), fill
            )

    def geometry(self) -> Geometry | None:
        """The geometry in the document of ``frames``, None before the first chunk or if it is not possible."""
        document = self.documents.get(FRAMES)
        if document is None:
            return None
        try:
            chunk, height, width = document["chunk_grid"]["configuration"]["chunk_shape"]
            given = Geometry(chunk, height, width, cast(DtypeName, document["data_type"]))
            return given if len(document["shape"]) == 3 and given.is_possible else None
        except (TypeError, ValueError, KeyError):
            return None

    def add_frames(self, geometry: Geometry) -> None:
        """Create the empty array ``frames``, durably, before the first shard is stored.

        Raises:
            OSError: from the disk.
        """
        shard = (geometry.chunk_size, geometry.height, geometry.width)
        document = make_document(
            (0, *shard[1:]),
            np.dtype(geometry.dtype),
            (1, *shard[1:]),
            shard,
            0,
            ("time", "y", "x"),
            FRAMES_ABOUT,
        )
        self.files.file_system.make_folder(self.shards, durable=False)
        self._write(FRAMES, document)
        self.files.file_system.sync_folders(self.folder / FRAMES, self.folder.parent)
        self.documents[FRAMES] = document

    def column(
        self, name: str, dimension: str, dtype: str, fill: float, attributes: Mapping[str, Any] | None = None
    ) -> Column:
        """The column of that name; a new one becomes visible with the next :meth:`publish`."""
        if name not in self._columns:
            document = make_document(
                (0,), np.dtype(dtype), (COLUMN_CHUNK,), None, fill, (dimension,), attributes
            )
            self._columns[name] = Column(self.folder / name, self.files, np.dtype(dtype), fill)
            self.documents[name] = document
            self.lengths.setdefault(dimension, 0)
        return self._columns[name]

    def has(self, name: str) -> bool:
        """Whether a column of that name exists."""
        return name in self._columns

    def shape_of(self, name: str) -> tuple[str, str] | None:
        """Dimension and data type of a column; None for an array of another form."""
        if name not in self._columns:
            return None
        document = self.documents[name]
        return document["dimension_names"][0], document["data_type"]

    def is_result(self, name: str) -> bool:
        """Whether the array of that name holds analysis results."""
        return bool(RESULT.items() <= self.documents[name].get("attributes", {}).items())

    def _is_later(self, name: str) -> bool:
        return name in self._later or self.is_result(name)

    def results(self) -> dict[str, Column]:
        """The columns of analysis results, by name."""
        # A copy, because another thread may be adding a column.
        return {name: column for name, column in tuple(self._columns.items()) if self.is_result(name)}

    def stored(self, name: str) -> Iterator[tuple[int, Values]]:
        """(start, values) of each file of an existing column."""
        return self._columns[name].stored()

    def publish(self, attributes: Mapping[str, Any]) -> None:
        """Write the arrays' lengths and the group's attributes into the documents that changed.

        Arrays other than ``frames`` get their new length in the group's document only, which readers use: replacing
        dozens of files for each chunk would delay its reply.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        for name in self.documents:
            self._resize(name)
        for name in sorted(self.documents, key=lambda name: name == FRAMES):
            if not self._is_later(name):
                self._write(name, self.documents[name])
        self._write("", self._group_document(attributes))
        self.published_at = time.monotonic()

    def sync_files(self, name: str, paths: Iterable[Path]) -> None:
        """Make these files of an existing column durable."""
        self._columns[name].sync(paths)

    def write_document(self, name: str) -> None:
        """Write an array's own document."""
        self._resize(name)
        self._write(name, self.documents[name])

    def sync(self) -> None:
        """Write the documents that :meth:`publish` leaves out, and make all documents durable."""
        for name in filter(self._is_later, self.documents):
            self.write_document(name)
        for name in ("", *self.documents):
            self.files.file_system.sync_folder(self.folder / name)

    def _resize(self, name: str) -> None:
        if name == FRAMES:
            self.documents[FRAMES]["shape"][0] = self.lengths.get("time", 0)
        elif name in self._columns:
            dimension = self.documents[name]["dimension_names"][0]
            self.documents[name]["shape"] = [self.lengths[dimension]]

    def _group_document(self, attributes: Mapping[str, Any]) -> Document:
        # Inline consolidated metadata is a convention of zarr-python; other readers may ignore it.
        arrays = dict(sorted(self.documents.items()))
        consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
        return {
            "attributes": {key: value for key, value in attributes.items() if value is not None},
            "zarr_format": 3,
            "consolidated_metadata": consolidated,
            "node_type": "group",
        }

    def _write(self, name: str, document: Document) -> None:
        raw = _encoded(document)
        if self._on_disk.get(name) == raw:
            return
        path = self.folder / name / DOCUMENT
        self.files.check_not_deleted()
        try:
            self.files.file_system.make_folder(path.parent, durable=False)
            self.files.write_atomic(path, raw)
        except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError):
            self.files.clear_way(path)
            self.files.file_system.make_folder(path.parent, durable=False)
            self.files.write_atomic(path, raw)
        self._on_disk[name] = raw


def make_document(
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    fill: float | str,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, Any] | None = None,
) -> Document:
    """The document of an array: as zarr-python writes it, zstd in shards, uncompressed otherwise."""
    # Imported here: it takes 0.3 s, and only the first chunk of a stream needs it.
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


def _encoded(document: Document) -> bytes:
    # msgspec needs a tenth of the time of json, and the group's document is written for each chunk. It refuses half
    # characters, which names in old archives may have.
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(document, allow_nan=False).encode()


def _read(path: Path) -> bytes:
    """The content of a document; empty if there is none, or a link, a pipe or a folder, which are not opened."""
    try:
        return read_plain(path, DOCUMENT_BYTES)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            raise
        return b""


def _parse(raw: bytes) -> Document | None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if _is_array(document) else None


def _is_array(document: Any) -> bool:
    return isinstance(document, dict) and document.get("node_type") == "array"


def _check(document: Document) -> None:
    """Check what every reader of a group needs of an array's document; raises ValueError or TypeError."""
    shape, chunks = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    names = document.get("dimension_names")
    sizes = [*shape, *chunks]
    if any(type(size) is not int or not 0 <= size < _MAX_SIZE for size in sizes) or len(shape) != len(chunks):
        raise ValueError("impossible sizes")
    if not isinstance(document.get("attributes", {}), dict) or not isinstance(
        document["data_type"], (str, dict)
    ):
        raise TypeError("attributes or data type")
    if names is not None and (not isinstance(names, list) or len(names) != len(shape)):
        raise TypeError("names of dimensions")
    json.dumps(document, allow_nan=False)


def _consolidated_in(raw: bytes) -> dict[str, Document] | None:
    """The copies of the arrays' documents in that of the group; None if it can't be read."""
    try:
        arrays = json.loads(raw)["consolidated_metadata"]["metadata"]
        return {name: document for name, document in arrays.items() if _is_array(document)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _column_dimension(document: Document) -> str | None:
    """The dimension of an array made by :meth:`ZarrGroup.column`; None for any other array."""
    names = document.get("dimension_names") or []
    grid = document.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    plain = [codec.get("name") for codec in document.get("codecs", [])] == ["bytes"]
    ours = plain and grid == [COLUMN_CHUNK] and document.get("data_type") in COLUMN_DTYPES
    return names[0] if ours and len(names) == 1 else None
