"""Gives up chunks that grew older than ``spool_retention_s``, where that was asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from atomstream.errors import SpoolError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.spool import StreamSpool

log = logging.getLogger("atomstream.spool")

MOST_OFTEN_S: Final = 1.0
SELDOM_S: Final = 60.0


async def watch_age(pipeline: Pipeline, retention_s: float) -> None:
    """Look at the oldest record of each stream now and then, for as long as the streamer lives."""
    while True:
        for stream in list(pipeline.streams.values()):
            if stream.spool is not None:
                indices = await _expired(pipeline, stream.spool, retention_s)
                if indices:
                    pipeline.purged(stream, indices)
        await asyncio.sleep(min(SELDOM_S, max(MOST_OFTEN_S, retention_s / 10)))


async def _expired(pipeline: Pipeline, spool: StreamSpool, retention_s: float) -> list[int]:
    try:
        return await pipeline.depot.run(lambda: spool.expire(retention_s))
    except SpoolError as error:
        log.warning("%s", error)
        return []
