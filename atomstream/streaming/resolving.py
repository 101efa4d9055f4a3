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
from contextlib import suppress
from typing import Final

import anyio

from atomstream.errors import RejectedError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.retry import retrying
from atomstream.pipeline.stream import Stream
from atomstream.service.api import ServiceApi

log = logging.getLogger("atomstream.spool")

PATIENCE_S: Final = 5.0


class Question:
    """Which chunks of one stream the server has; ``missing`` were accepted before and are not on disk."""

    def __init__(self, pipeline: Pipeline, api: ServiceApi, stream: Stream, missing: Sequence[int]) -> None:
        self._pipeline = pipeline
        self._api = api
        self._stream = stream
        self._missing = missing
        self._tried = asyncio.Event()
        stream.asking = True

    async def run(self) -> None:
        """Settle what is missing, learn what was not known; in an outage that waits, and so does the stream's end."""
        try:
            stored = await self._stored()
            self._stream.asking = False
            self._pipeline.resolve(self._stream, self._missing, stored)
        finally:
            self._tried.set()

    async def tried(self) -> None:
        """Return at the answer, or once it is clear that none comes soon: then the journal's word must do."""
        with suppress(TimeoutError), anyio.fail_after(PATIENCE_S):
            await self._tried.wait()

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
        self._tried.set()
        if isinstance(error, RejectedError):
            return False
        log.log(
            logging.WARNING if self._missing else logging.INFO,
            "Stream %s: %s Until it answers, chunks that an earlier process had only in memory count as pending.",
            self._stream.spec.data_id,
            error,
        )
        return True
