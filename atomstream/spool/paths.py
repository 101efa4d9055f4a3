"""File names in the spool. Files with other names are never opened, counted or removed.

::

    root/
      root.lock
      <hash of the endpoint>/<data_id>/
        stream.json  journal  usage  lock
        chunk-00000012.rec              a record
        spare-3.rec.tmp                 a recycled file: the file of an uploaded record, to be overwritten
        chunk-00000012.stored           a marker: the chunk is stored, but the disk was too full for a journal entry
        quarantine/chunk-00000007.rec
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from atomstream.config import normalise_endpoint
from atomstream.system.files import TEMP_SUFFIX
from atomstream.system.own_files import is_link

QUARANTINE: Final = "quarantine"
MANIFEST: Final = "stream.json"
JOURNAL: Final = "journal"
USAGE: Final = "usage"
LOCK: Final = "lock"
ROOT_LOCK: Final = "root.lock"

_TEMP: Final = re.escape(TEMP_SUFFIX)
_RECORD: Final = re.compile(r"chunk-(\d{8})\.rec")
_MARKER: Final = re.compile(r"chunk-(\d{8})\.(stored|dropped|purged)")
_TEMPORARY: Final = re.compile(rf"(chunk-\d{{8}}\.rec|spare-\d+\.rec|{re.escape(MANIFEST)}|{JOURNAL}){_TEMP}")
_RECYCLED: Final = re.compile(rf"spare-\d+\.rec{_TEMP}")
_ENDPOINT: Final = re.compile(r"[0-9a-f]{16}")
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HASHED: Final = re.compile(r"~[0-9a-f]{32}")
_WINDOWS_DEVICE: Final = re.compile(r"con|prn|aux|nul|(com|lpt)\d")


def endpoint_folder(endpoint: str) -> str:
    """Folder name for an endpoint's streams; equivalent spellings of a URL have the same folder."""
    return hashlib.blake2b(normalise_endpoint(endpoint).encode(), digest_size=8).hexdigest()


def stream_folder(data_id: str) -> str:
    """Folder name for a stream: its id if that is a safe name on every system, else ``~`` and its hash.

    Only lower-case ids are used as names, because some file systems ignore case.
    """
    if _PLAIN.fullmatch(data_id) and not _WINDOWS_DEVICE.fullmatch(data_id):
        return data_id
    return "~" + hashlib.blake2b(data_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def record_name(index: int) -> str:
    """File name for the record of chunk ``index``."""
    return f"chunk-{index:08d}.rec"


def marker_name(index: int, kind: str) -> str:
    """File name for a marker: it replaces the journal entry ``kind`` of chunk ``index`` on a full disk."""
    return f"chunk-{index:08d}.{kind}"


def recycled_name(number: int) -> str:
    """File name for a recycled file. It ends as a temporary file does, so recovery removes it."""
    return f"spare-{number}.rec{TEMP_SUFFIX}"


def is_own_name(name: str) -> bool:
    """True if an entry of the root folder has the name of one of the spool's own."""
    return name == ROOT_LOCK or _ENDPOINT.fullmatch(name) is not None


def endpoint_folders(root: Path) -> list[Path]:
    """The folders of all endpoints under ``root``, sorted by name."""
    return [folder for folder in _folders(root) if _ENDPOINT.fullmatch(folder.name)]


def stream_folders(root: Path) -> Iterator[Path]:
    """All stream folders under ``root``, sorted by name."""
    for endpoint in endpoint_folders(root):
        for folder in _folders(endpoint):
            if is_stream_name(folder.name):
                yield folder


def is_stream_name(name: str) -> bool:
    """True if a folder has the name of a stream's folder."""
    return bool(_PLAIN.fullmatch(name) or _HASHED.fullmatch(name))


def records_in(folder: Path) -> dict[int, int]:
    """Size in bytes of each record in a folder, by chunk index, in increasing order."""
    matches = ((_RECORD.fullmatch(entry.name), entry) for entry in _files(folder))
    return dict(sorted((int(match[1]), _size(entry.path)) for match, entry in matches if match))


def markers_in(folder: Path) -> list[tuple[int, str]]:
    """Chunk index and kind of each marker in a folder."""
    matches = (_MARKER.fullmatch(entry.name) for entry in _files(folder))
    return [(int(match[1]), match[2]) for match in matches if match]


def temporaries_in(folder: Path) -> list[Path]:
    """Partially written files and recycled files in a folder; recovery removes them."""
    return [Path(entry.path) for entry in _files(folder) if _TEMPORARY.fullmatch(entry.name)]


def recycled_in(folder: Path) -> list[Path]:
    """Recycled files in a folder."""
    return [path for path in temporaries_in(folder) if _RECYCLED.fullmatch(path.name)]


def record_bytes(folder: Path) -> int:
    """Total bytes of a stream's records, quarantined records, partial files and recycled files."""
    complete = sum(records_in(folder).values()) + sum(records_in(folder / QUARANTINE).values())
    return complete + sum(map(_size, temporaries_in(folder)))


def _size(path: str | Path) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:  # the owner of the stream has just removed or renamed it
        return 0


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    if is_link(folder):  # links are neither followed nor counted
        return
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
