"""Opening the archive of a stream whose files may have been damaged in any way."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from atomstream.errors import AtomstreamError, StreamError
from atomstream.server.archive.archive_files import SET_ASIDE
from atomstream.server.archive.chunk_index import NO_RESOURCES
from atomstream.server.archive.damage import StreamDamage
from atomstream.server.archive.metadata import ABOUT, checked_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.ports.store import StoreError
from atomstream.shard import index_nbytes
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

CHECKED_SHARDS: Final = 20_000
"""Number of a stream's newest chunks whose files are checked when it is opened; this takes about 0.1 s."""


def open_checked(
    folder: Path, damage: StreamDamage, opened: Callable[[], StreamArchive] | None = None
) -> StreamArchive:
    """Open the archive in ``folder``, or with the function ``opened`` if given, and check its description. Blocks.

    Whatever is wrong with it, the error is of one type and concerns this stream alone. ``damage`` has a note about it.

    Raises:
        StreamError: the stream can't be used; the message has the reason, without paths of this computer.
        OSError: this process can't open more files at present. StoreError: from the store of a cache.
    """
    try:
        archive = StreamArchive.open(folder, damage=damage) if opened is None else opened()
        checked_about(archive.description, folder.name)
        damage.remove(ABOUT)
        _repair_geometry(archive)
        if not archive.is_cache:
            _note_bad_shards(archive)
        _note_set_aside(archive)
    except StoreError:  # the store is unreachable, or has no such stream: nothing is wrong with the files
        raise
    except OSError as error:
        if error.errno in NO_RESOURCES:
            raise
        raise _unusable(folder, damage, error, error.strerror or str(error)) from error
    except Exception as error:  # any value in the files may be wrong; the others must be opened
        raise _unusable(folder, damage, error, str(error)) from error
    return archive


def _unusable(folder: Path, damage: StreamDamage, error: Exception, why: str) -> StreamError:
    if not isinstance(error, (StreamError, OSError)):
        log.debug("stream %s can't be opened", folder.name, exc_info=error)
        why = f"its files have impossible values ({type(error).__name__}: {why})"
    why = why.replace(f"{folder}/", "").replace(str(folder), "its folder")
    damage.add(ABOUT, f"the stream can't be used: {why} Its files were not changed.")
    return StreamError(why, data_id=folder.name)


def _repair_geometry(archive: StreamArchive) -> None:
    """Correct the shape in the description from the stored frames: with another one, all further chunks would be
    refused.
    """
    described = archive.description.get("geometry")
    if archive.geometry is None or described is None:
        return
    found = msgspec.to_builtins(archive.geometry)
    if described != found:
        archive.files.note_damage(
            archive.folder / ABOUT, "its geometry was not that of the frames; it was corrected"
        )
        archive.update_about(geometry=found)


def _note_bad_shards(archive: StreamArchive) -> None:
    """Note stored chunks whose files are missing, too short or not regular files; ``atomstream check`` reads them
    completely."""
    if archive.geometry is None:
        return
    least = index_nbytes(archive.geometry.chunk_size)
    newest = sorted(archive.stored())[-CHECKED_SHARDS:]
    for index in newest:
        try:
            found = os.lstat(archive.shard_file(index))
        except (FileNotFoundError, NotADirectoryError):
            archive.note_unreadable(index, "its file is missing")
        else:
            if not stat.S_ISREG(found.st_mode) or found.st_size <= least:
                archive.note_unreadable(index, "its file is too short, or not a file")


def _note_set_aside(archive: StreamArchive) -> None:
    """Note damaged files that were moved or copied away at an earlier start; they are listed for as long as they
    exist."""
    places = (*archive.folder.glob(f"{SET_ASIDE}/*"), *archive.folder.glob("analysis/*.damaged-*"))
    for path in sorted(places):
        archive.files.note_damage(path, "a damaged file was kept here; remove it when it is not needed")


def iter_archives(streams_dir: Path) -> Iterator[StreamArchive]:
    """Open all archives, one after the other. Folders without a stream are skipped; nothing is removed.

    An archive that can't be opened is skipped with a warning in the log.
    """
    for folder in sorted(streams_dir.iterdir()) if streams_dir.is_dir() else ():
        if not (folder / ABOUT).is_file():
            continue
        try:
            archive = StreamArchive.open(folder)
        except (AtomstreamError, OSError) as error:
            log.warning("%s is left out, its files are not changed: %s", folder, error)
        else:
            yield archive
