"""Keeps the cache of a server's streams below a size: what was unused for the longest time is removed.

Everything in it is in the store too. Streams that are not open lose their whole folder. If that is not enough, open
ones lose shards, which are fetched again when they are read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from atomstream.server.archive.metadata import ABOUT, is_stream_id

ROOM: Final = 0.9
"""A full cache is reduced to this share of its limit."""
YOUNG_S: Final = 60.0
"""A shard that was stored or fetched within this time, in s, stays: it may be read soon."""


@dataclass(slots=True)
class CachedStream:
    """The files of one stream in the cache: bytes, time of the last change (Unix s), and the shards."""

    folder: Path
    nbytes: int = 0
    changed: float = 0.0
    shards: list[tuple[float, int, Path]] = field(default_factory=list)
    """(time, bytes, path) of each."""


def cached_streams(streams_dir: Path) -> list[CachedStream]:
    """All streams in the cache, the longest unchanged ones first. Reads the state of every file. Blocks."""
    found = []
    for folder in streams_dir.iterdir() if streams_dir.is_dir() else ():
        if not is_stream_id(folder.name):
            continue
        stream = CachedStream(folder)
        shards = str(folder / "frames.zarr" / "frames" / "c") + os.sep
        for path, state in _files(folder):
            stream.nbytes += state.st_size
            stream.changed = max(stream.changed, state.st_mtime)
            if path.startswith(shards):
                stream.shards.append((state.st_mtime, state.st_size, Path(path)))
        found.append(stream)
    return sorted(found, key=lambda stream: stream.changed)


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                yield path, os.lstat(path)
            except FileNotFoundError:  # a temporary file
                continue


async def shrink(
    streams: list[CachedStream],
    most_bytes: int,
    remove: Callable[[Path], Awaitable[bool]],
    now: Callable[[], float] = time.time,
) -> int:
    """Remove what is unused for the longest time, if the streams have more than ``most_bytes``; returns bytes left.

    ``remove(folder)`` removes a stream that is not open, and returns False for one that is.
    """
    total = sum(stream.nbytes for stream in streams)
    if total <= most_bytes:
        return total
    wanted = int(most_bytes * ROOM)
    open_ones = []
    for stream in streams:
        if total > wanted and await remove(stream.folder):
            total -= stream.nbytes
        else:
            open_ones.append(stream)
    # There may be a million shards.
    return await asyncio.to_thread(_remove_shards, open_ones, total, wanted, now() - YOUNG_S)


def _remove_shards(streams: list[CachedStream], total: int, wanted: int, before: float) -> int:
    """Remove shards older than ``before`` (Unix s), the oldest first, until ``wanted`` bytes are left. Blocks."""
    if total <= wanted:
        return total
    for changed, nbytes, path in sorted(shard for stream in streams for shard in stream.shards):
        if total <= wanted or changed > before:
            break
        path.unlink(missing_ok=True)
        total -= nbytes
    return total


def remove_folder(folder: Path) -> None:
    """Remove a stream's folder. Its description goes first: the rest counts as nothing from then on. Blocks."""
    (folder / ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
