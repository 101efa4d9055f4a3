"""Background task of a server with a shared catalogue: follows deletions, and takes over streams of servers that
died.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.shared_catalogue import SharedCatalogue
from atomstream.server.catalogue.shared_streams import SharedStreams
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.context import ServerContext
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.responses import HttpError
from atomstream.server.routes.manage import remove_stream
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

CHECK_PERIOD_S: Final = 1.0
"""Interval, in s, of the checks for streams that other servers have deleted."""
TAKE_OVER_S: Final = 10.0
"""Interval, in s, of the checks for streams of servers that have ended."""


async def watch_other_servers(context: ServerContext) -> None:
    """Remove here what other servers delete, and time the streams of servers that have ended. Runs until cancelled."""
    names, rows = context.catalogue, context.streams_table
    assert isinstance(names, SharedCatalogue)
    assert isinstance(rows, SharedStreams)
    known = len(context.streams.deleted_from)
    taken_over = time.monotonic()
    while True:
        await asyncio.sleep(CHECK_PERIOD_S)
        try:
            if (count := await names.count_deleted()) != known:
                await follow_deletions(context, names, rows)
                known = count
            if time.monotonic() - taken_over >= TAKE_OVER_S:
                taken_over = time.monotonic()
                await context.lifecycle.take_over()
        except CatalogueUnavailableError:  # logged once, by the database
            continue
        except Exception as error:
            log_failure(log, error, "changes of other servers can't be followed")


async def follow_deletions(context: ServerContext, names: SharedCatalogue, rows: SharedStreams) -> None:
    """Remove the files of streams that other servers have deleted, and their rows if one was written meanwhile."""
    deleted = await names.deleted_streams(context.settings.streams_dir)
    new = [data_id for data_id in deleted if data_id not in context.streams.deleted]
    open_caches = context.streams.shared()  # removed by StoreSync
    for data_id in new:
        if data_id not in open_caches and (context.streams.folder / data_id).is_dir():
            await remove_stream(context, data_id, await _archive(context, data_id), deleted[data_id])
        else:
            context.streams.deleted.add(data_id)
            context.streams.deleted_from[data_id] = deleted[data_id]
    if new:
        await rows.drop_rows(new)


async def _archive(context: ServerContext, data_id: str) -> StreamArchive | None:
    if context.settings.store is not None:  # its files are only a cache
        return None
    try:
        return await context.streams.archive(data_id)
    except HttpError:  # its files are damaged
        return None
