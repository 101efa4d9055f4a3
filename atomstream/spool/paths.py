"""Names on disk, and which of them are ours: nothing else is ever opened, counted or removed (promise P12).

::

    root/
      root.lock
      <hash of the endpoint>/<data_id>/
        stream.json  journal  usage  lock
        chunk-00000012.rec              a record
        spare-3.rec.tmp                 a delivered record's file, to be written over
        chunk-00000012.stored           settled, but the full disk had no room to say so in the journal
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

QUARANTINE: Final = "quarantine"
MANIFEST: Final = "stream.json"
JOURNAL: Final = "journal"
USAGE: Final = "usage"
LOCK: Final = "lock"
ROOT_LOCK: Final = "root.lock"

_TEMP: Final = re.escape(TEMP_SUFFIX)
_RECORD: Final = re.compile(r"chunk-(\d{8})\.rec")
_MARK: Final = re.compile(r"chunk-(\d{8})\.(stored|dropped|purged)")
_TEMPORARY: Final = re.compile(rf"(chunk-\d{{8}}\.rec|spare-\d+\.rec|{re.escape(MANIFEST)}|{JOURNAL}){_TEMP}")
_SPARE: Final = re.compile(rf"spare-\d+\.rec{_TEMP}")
_ENDPOINT: Final = re.compile(r"[0-9a-f]{16}")
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HASHED: Final = re.compile(r"~[0-9a-f]{32}")
_WINDOWS_DEVICE: Final = re.compile(r"con|prn|aux|nul|(com|lpt)\d")


def endpoint_folder(endpoint: str) -> str:
    """The folder of an endpoint's streams; spellings that mean the same share it."""
    return hashlib.blake2b(normalise_endpoint(endpoint).encode(), digest_size=8).hexdigest()


def stream_folder(data_id: str) -> str:
    """The folder of a stream: its id where that is harmless on every system, else ``~`` and its hash.

    Lower case only, for two ids must not meet in one folder where names ignore case.
    """
    if _PLAIN.fullmatch(data_id) and not _WINDOWS_DEVICE.fullmatch(data_id):
        return data_id
    return "~" + hashlib.blake2b(data_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def record_name(index: int) -> str:
    """The file of the record of chunk ``index``."""
    return f"chunk-{index:08d}.rec"


def mark_name(index: int, kind: str) -> str:
    """The file that says that chunk ``index`` is settled, where the journal had no room."""
    return f"chunk-{index:08d}.{kind}"


def spare_name(number: int) -> str:
    """The file of a delivered record that the next one is written over; a temporary one as half-written ones are."""
    return f"spare-{number}.rec{TEMP_SUFFIX}"


def stream_folders(root: Path) -> Iterator[Path]:
    """All folders under ``root`` that have the names of streams, in order."""
    for endpoint in _folders(root):
        if _ENDPOINT.fullmatch(endpoint.name):
            for folder in _folders(endpoint):
                if _PLAIN.fullmatch(folder.name) or _HASHED.fullmatch(folder.name):
                    yield folder


def records_in(folder: Path) -> dict[int, int]:
    """Index and size in bytes of each record in a folder, in the order of the indices."""
    found = ((_RECORD.fullmatch(entry.name), entry) for entry in _files(folder))
    return dict(sorted((int(match[1]), _size(entry.path)) for match, entry in found if match))


def marks_in(folder: Path) -> list[tuple[int, str]]:
    """Index and kind of each settled mark in a folder."""
    found = (_MARK.fullmatch(entry.name) for entry in _files(folder))
    return [(int(match[1]), match[2]) for match in found if match]


def temporaries_in(folder: Path) -> list[Path]:
    """Our half-written and spare files in a folder: of no use to whoever opens it."""
    return [Path(entry.path) for entry in _files(folder) if _TEMPORARY.fullmatch(entry.name)]


def spares_in(folder: Path) -> list[Path]:
    """The spare files among them."""
    return [path for path in temporaries_in(folder) if _SPARE.fullmatch(path.name)]


def record_bytes(folder: Path) -> int:
    """Bytes of all records of a stream's folder: whole, half-written and quarantined."""
    kept = sum(records_in(folder).values()) + sum(records_in(folder / QUARANTINE).values())
    return kept + sum(map(_size, temporaries_in(folder)))


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # its owner has just removed or renamed it
        return 0


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
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
