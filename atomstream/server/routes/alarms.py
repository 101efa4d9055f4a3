"""Requests for the alarms of a stream: its rules, and which of them are met."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import ALARMS_PATH
from atomstream.server.alarms.rules import MAX_RULES, AlarmRule
from atomstream.server.alarms.watch import RaisedAlarm, StreamAlarms
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import json_reply, refuse
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()


class RulesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that replaces all rules of a stream."""

    rules: Annotated[list[AlarmRule], msgspec.Meta(max_length=MAX_RULES)]


class AlarmsReport(msgspec.Struct, frozen=True):
    """The rules, the raised alarms, and to how many addresses the server sends messages about them."""

    rules: list[AlarmRule]
    raised: list[RaisedAlarm]
    webhooks: int


@routes.get(ALARMS_PATH)
@access(Right.READ)
async def alarms(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/alarms``."""
    context, data_id = context_of(request), request.match_info["data_id"]
    await context.streams.about(data_id)
    return _report(await context.alarms.of(data_id), len(context.alarms.webhooks))


@routes.put(ALARMS_PATH)
@access(Right.WRITE)
async def set_alarms(request: web.Request) -> web.Response:
    """``PUT /rheed/stream/{data_id}/alarms``: replace all rules. No address can be given."""
    context, data_id = context_of(request), request.match_info["data_id"]
    await context.streams.about(data_id)
    body = await read_json(request, RulesBody)
    try:
        alarms = await context.alarms.set_rules(data_id, body.rules)
    except ConfigError as error:
        return refuse(400, str(error))
    return _report(alarms, len(context.alarms.webhooks))


def _report(alarms: StreamAlarms, webhooks: int) -> web.Response:
    return json_reply(AlarmsReport(alarms.rules, alarms.raised, webhooks))
