"""The audit log: who did what to which stream, in ``people.jsonl`` and as a line of the log."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.gate import GATE, actor_of
from atomstream.server.people.records import Actor
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
    log_audit(actor, done, data_id)
    try:
        await asyncio.to_thread(request.app[GATE].people.note, actor, done, data_id)
    except (ConfigError, OSError) as error:
        log_failure(log, error, "the audit log could not be written: %s", done)


def log_audit(actor: Actor, done: str, data_id: str = "") -> None:
    """The line of the log; in JSON it has the fields ``by``, ``via``, ``address``, ``done`` and ``stream``."""
    fields = {"by": actor.by, "via": actor.via, "address": actor.address, "done": done, "stream": data_id}
    what = f"stream {data_id} {done}" if data_id else done
    log.info("%s by %s (%s) from %s", what, actor.by, actor.via, actor.address, extra={"audit": fields})
