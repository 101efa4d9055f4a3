"""The audit log: who did what to which stream, in ``people.jsonl`` and as a line of the log."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.gate import GATE, actor_of
from atomstream.server.people.records import Entry
from atomstream.server.people.rights import Principal
from atomstream.system.log_privacy import get_logger

log: Final = get_logger("atomstream.server.audit")


async def audit(
    request: web.Request, done: str, data_id: str = "", principal: Principal | None = None
) -> None:
    """Note what was ``done``, to which stream, by whom, with which key and from which address.

    It has happened already: if it can't be stored, the log has it, with the reason.
    """
    actor = actor_of(request, principal)
    try:
        await asyncio.to_thread(request.app[GATE].people.note, actor, done, data_id)
    except (ConfigError, OSError, CatalogueUnavailableError) as error:
        log_entry(Entry("", actor.by, actor.via, done, actor.address, data_id))
        log_failure(log, error, "the audit log could not be written")


def log_entry(entry: Entry) -> None:
    """The line of the log; in JSON it has an object ``audit`` with the fields of the entry."""
    fields = {"by": entry.by, "via": entry.via, "address": entry.address}
    fields |= {"done": entry.done, "stream": entry.stream}
    what = f"stream {entry.stream} {entry.done}" if entry.stream else entry.done
    where = f" from {entry.address}" if entry.address else ""
    log.info("%s by %s (%s)%s", what, entry.by, entry.via, where, extra={"audit": fields})
