"""The newest result of a stream, kept up to date in the background."""

from __future__ import annotations

import logging
from contextlib import aclosing

from atomstream.errors import AtomstreamError
from atomstream.streaming.batch import ResultBatch
from atomstream.streaming.following import Follower

log = logging.getLogger("atomstream")
NEWEST = -1
"""Where a feed begins for whoever wants its newest batch only."""


class Newest:
    """Follows one stream; ``batch`` is the newest, None before the first."""

    def __init__(self, follower: Follower, data_id: str) -> None:
        self.batch: ResultBatch | None = None
        self.running = True
        self._follower = follower
        self._data_id = data_id

    async def run(self) -> None:
        """Follow until the analysis ends."""
        try:
            async with aclosing(self._follower.batches()) as batches:
                async for batch in batches:
                    self.batch = batch
        except AtomstreamError as error:
            log.warning("The newest result of stream %s is no longer followed: %s", self._data_id, error)
        finally:
            self.running = False
