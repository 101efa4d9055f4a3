"""Chunks that an earlier process had accepted and not yet written when it ended: arrived all the same, or lost?

It may have been killed between the server's 200 and its journal. Only the server can tell; a hosted one can't, so
there they count as dropped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from atomstream.errors import RejectedError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.retry import retrying
from atomstream.pipeline.stream import Stream
from atomstream.service.api import ServiceApi

log = logging.getLogger("atomstream.spool")


async def resolve(pipeline: Pipeline, api: ServiceApi, stream: Stream, missing: Sequence[int]) -> None:
    """Settle ``missing`` once the server has said which of them it has; until then they are pending."""
    ranges = await _stored(api, stream)
    pipeline.resolve(stream, missing, {index for index in missing if any(index in one for one in ranges)})


async def _stored(api: ServiceApi, stream: Stream) -> list[range]:
    if not stream.spec.announced:
        return []
    try:
        return await retrying(
            lambda: api.stored_chunks(stream.spec.data_id),
            attempts=sys.maxsize,  # as the uploads: an outage or a key that is refused for now ends some time
            may_repeat=lambda error: _may_repeat(error, stream),
        )
    except RejectedError:  # no such stream, or a server before this question
        return []


def _may_repeat(error: BaseException, stream: Stream) -> bool:
    if isinstance(error, RejectedError):
        return False
    log.warning(
        "Stream %s: %s Until it answers, chunks that an earlier process had only in memory count as pending.",
        stream.spec.data_id,
        error,
    )
    return True
