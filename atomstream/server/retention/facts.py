"""The input of the retention rules for each stream of a server with its own data folder."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Protocol

import numpy as np

from atomstream.server.archive.metadata import StreamMetadata, is_stream_id
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.http.responses import HttpError
from atomstream.server.retention.plan import StreamFacts
from atomstream.server.streams.registry import StreamRegistry
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

WhyBusy = Callable[[StreamMetadata, bool], str]
"""Why a stream must not be changed, empty if it may be: by its description, and whether it is being analysed."""


class Facts(Protocol):
    """Finds all streams that the rules may concern."""

    async def all(self, now: float, why_busy: WhyBusy) -> list[StreamFacts]:
        """The facts at ``now`` (Unix s)."""
        ...


class FolderFacts:
    """The streams in the data folder."""

    def __init__(self, streams: StreamRegistry) -> None:
        self._streams = streams

    async def all(self, now: float, why_busy: WhyBusy) -> list[StreamFacts]:
        """The facts of all streams that can be read."""
        found = []
        names = await asyncio.to_thread(lambda: sorted(path.name for path in self._streams.folder.iterdir()))
        for data_id in filter(is_stream_id, names):
            try:
                found.append(await self._facts_of(data_id, now, why_busy))
            except HttpError as error:  # deleted meanwhile, or damaged: nothing is changed
                log.info("retention: stream %s is left out: %s", data_id, error.detail)
        return found

    async def _facts_of(self, data_id: str, now: float, why_busy: WhyBusy) -> StreamFacts:
        archive, about = await self._streams.archive(data_id), await self._streams.about(data_id)
        newest_s, nbytes = await asyncio.to_thread(_measure, archive)
        analysed_again = await asyncio.to_thread(archive.is_analysed_again)
        return facts_of(
            about,
            now,
            newest_s,
            archive.frames_stored(),
            nbytes,
            why_busy(about, analysed_again) if nbytes else "",
        )


def facts_of(
    about: StreamMetadata, now: float, newest_s: float, n_frames: int, nbytes: int, busy: str
) -> StreamFacts:
    """The facts of one stream; ``newest_s`` (Unix s) is the time of its newest frame, 0 if unknown."""
    made = datetime.datetime.fromisoformat(about.made).timestamp()
    newest_s = max(made, newest_s if newest_s <= now else 0.0)
    return StreamFacts(
        data_id=about.data_id,
        name=about.name,
        project=about.project.name if about.project else None,
        age_s=max(0.0, now - newest_s),
        n_frames=n_frames,
        nbytes=nbytes,
        busy=busy,
        thinning=about.thinning,
    )


def _measure(archive: StreamArchive) -> tuple[float, int]:
    """The time of the newest frame in Unix s (0 if unknown), and the bytes of all shards."""
    nbytes = 0
    for index in archive.stored():
        try:
            nbytes += archive.shard_file(index).stat().st_size
        except OSError:
            continue
    n_frames, origin = archive.n_frames(), archive.origin_unix_ms
    if not n_frames or origin is None:
        return 0.0, nbytes
    newest = float(archive.results.times(n_frames - 1, n_frames)[0])
    return (origin / 1000.0 + newest if np.isfinite(newest) else 0.0), nbytes
