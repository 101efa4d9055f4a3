"""Gives the streams of one endpoint to another one: recordings that were made before there was a server.

Only streams that are registered on no server are moved. Folder and description (``stream.json``) change one after the
other, so a crash in between leaves a folder whose description names the old endpoint. The next call completes it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from atomstream.config import normalise_endpoint
from atomstream.errors import SpoolError, StreamError
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.paths import MANIFEST, endpoint_folder, is_stream_name
from atomstream.spool.quota import Quota
from atomstream.spool.recovery import is_unlocked, open_stream_folder
from atomstream.spool.stream_state import StreamManifest, read_manifest, write_manifest
from atomstream.system.files import FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_own_folder

_log = get_logger("atomstream.spool")


def adopt_streams(disk: FileSystem, quota: Quota, old: str, new: str) -> list[str]:
    """Move the unregistered, unlocked streams of the endpoint ``old`` to ``new``; returns their ids.

    The caller holds the root lock. A stream that can't be moved is logged and stays where it is.
    """
    source, target = (quota.root / endpoint_folder(one) for one in (old, new))
    adopted = []
    for folder in [*_stream_folders(target), *_stream_folders(source)]:
        try:
            manifest = read_manifest(disk, folder / MANIFEST)
            if _is_free(folder, manifest, old):
                _move(disk, quota, folder, target, replace(manifest, endpoint=normalise_endpoint(new)))
                adopted.append(manifest.spec.data_id)
        except (SpoolError, StreamError) as error:
            if folder.parent == source:
                _log.warning("A recording could not be assigned to %s: %s", new, error)
    return adopted


def _is_free(folder: Path, manifest: StreamManifest, old: str) -> bool:
    late = manifest.late
    unknown = late is not None and not late.server_id
    return manifest.endpoint == normalise_endpoint(old) and unknown and is_unlocked(folder)


def _move(disk: FileSystem, quota: Quota, folder: Path, target: Path, manifest: StreamManifest) -> None:
    moved = target / folder.name
    with disk_errors("give a recording to its server", folder):
        disk.make_folder(target, inside=quota.root)
        if folder != moved:
            disk.rename(folder, moved)
            disk.sync_folder(target)
            disk.sync_folder(folder.parent)
    write_manifest(disk, moved / MANIFEST, manifest)
    stream = open_stream_folder(disk, moved, quota)
    try:
        stream.update_manifest(manifest)  # the journal has a copy
    finally:
        stream.close()


def _stream_folders(endpoint: Path) -> list[Path]:
    found: list[Path] = []
    with suppress(OSError):
        found = sorted(
            path for path in endpoint.iterdir() if is_stream_name(path.name) and is_own_folder(path)
        )
    return found
