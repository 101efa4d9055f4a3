"""The input of the retention rules for each stream in a store that several servers share.

It is read from the store alone: the description, the sizes of all objects, and the times in the newest shard. So no
stream has to be copied into the cache of this server to find out that nothing is to be done with it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final

from atomstream.errors import AtomstreamError
from atomstream.server.archive.analysis_note import AnalysisNote
from atomstream.server.archive.metadata import RUNNING, checked_about, geometry_in
from atomstream.server.archive.shared_stream import SharedStream, stream_ids
from atomstream.server.ports.store import ObjectMissingError, Store, StoreUnavailableError
from atomstream.server.retention.facts import WhyBusy, facts_of
from atomstream.server.retention.plan import StreamFacts
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
_READERS: Final = 8


class StoreFacts:
    """The streams in ``store``; see :class:`~.facts.Facts`. Some requests for each stream, in separate threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self, now: float, why_busy: WhyBusy) -> list[StreamFacts]:
        """The facts of all streams that can be read; raises StoreUnavailableError."""
        return await asyncio.to_thread(self._all, now, why_busy)

    def _all(self, now: float, why_busy: WhyBusy) -> list[StreamFacts]:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="atomstream-retention") as threads:
            read = partial(self._facts_of, now=now, why_busy=why_busy)
            return [facts for facts in threads.map(read, stream_ids(self._store)) if facts is not None]

    def _facts_of(self, data_id: str, now: float, why_busy: WhyBusy) -> StreamFacts | None:
        shared = SharedStream(self._store, data_id)
        try:
            raw = shared.read_about()
            about, listing = checked_about(raw, data_id), shared.listing()
            geometry, newest_s = geometry_in(raw), 0.0
            if listing.chunks and geometry is not None:
                with suppress(ObjectMissingError):  # it was deleted meanwhile
                    newest_s = shared.stamps(listing.chunks.end - 1, geometry).end_unix_ms / 1000.0
        except ObjectMissingError:
            return None
        except StoreUnavailableError:
            raise
        except AtomstreamError as error:  # damaged: nothing is changed
            log.info("retention: stream %s is left out: %s", data_id, error)
            return None
        frames = len(listing.chunks) * geometry.chunk_size if geometry is not None else 0
        analysed_again = RUNNING in listing.others or AnalysisNote(shared).any()
        busy = why_busy(about, analysed_again) if listing.chunk_nbytes else ""
        return facts_of(about, now, newest_s, frames, listing.chunk_nbytes, busy)
