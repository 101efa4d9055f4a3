"""What the server has of a stream that an earlier process left: asked once, at its recovery.

That process may have been killed between the server's 200 and its journal, or between a push and its entry, which
waits for the disk while the chunk is sent. Only the server can tell; a hosted one can't, so there what was in memory
counts as dropped.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Final

import anyio

from atomstream.errors import RejectedError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.retry import retrying
from atomstream.pipeline.stream import Stream
from atomstream.service.api import ServiceApi

log = logging.getLogger("atomstream.spool")

PATIENCE_S: Final = 2.0
"""For the answer, at ``resume``: some attempts, while a server that starts beside its client comes up."""


class Question:
    """Which chunks of one stream the server has; ``missing`` were accepted before and are not on disk."""

    def __init__(self, pipeline: Pipeline, api: ServiceApi, stream: Stream, missing: Sequence[int]) -> None:
        self._pipeline = pipeline
        self._api = api
        self._stream = stream
        self._missing = missing
        self._answered = asyncio.Event()
        self._too_late = False
        stream.asking = True

    async def run(self) -> None:
        """Settle what is missing and learn what was not known; in an outage that waits, as the stream's end does."""
        stored = await self._stored()
        self._pipeline.resolve(self._stream, self._missing, stored)
        if self._too_late:
            await self._all_pushed()
        self._pipeline.learn(self._stream, stored)
        self._stream.asking = False
        self._stream.ledger.pulse.ring()
        self._answered.set()

    async def wait(self) -> None:
        """Return at the answer, or when there is none in time: then the journal's word must do for the next index."""
        try:
            with anyio.fail_after(PATIENCE_S):
                await self._answered.wait()
        except TimeoutError:
            self._too_late = True

    async def _all_pushed(self) -> None:
        # The journal's next index was given out meanwhile. To learn now that the server has it would make a push of
        # other frames under it look like a repetition; so the server refuses that chunk, and it is kept and told.
        ledger = self._stream.ledger
        await ledger.pulse.until(lambda: ledger.sealed and ledger.pending == 0)

    async def _stored(self) -> list[range]:
        if not self._stream.spec.announced:
            return []
        try:
            return await retrying(
                lambda: self._api.stored_chunks(self._stream.spec.data_id),
                attempts=sys.maxsize,  # as the uploads: an outage or a key that is refused for now ends some time
                may_repeat=self._may_repeat,
            )
        except RejectedError:  # no such stream, or a server before this question
            return []

    def _may_repeat(self, error: BaseException) -> bool:
        if isinstance(error, RejectedError):
            return False
        log.log(
            logging.WARNING if self._missing else logging.INFO,
            "Stream %s: %s Until it answers, %d chunks that an earlier process had only in memory count as pending.",
            self._stream.spec.data_id,
            error,
            len(self._missing),
        )
        return True
