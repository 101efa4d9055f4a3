"""The list of growth instruments, which the hosted service's client reads and changes. The list is stored as one small
document."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from atomstream.protocol import INSTRUMENTS_PATH
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right
from atomstream.system.log_privacy import get_logger

routes = web.RouteTableDef()
log = get_logger("atomstream.server")

INSTRUMENTS_FILE: Final = "instruments.json"
MAX_INSTRUMENTS: Final = 500

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class NewInstrument(msgspec.Struct, frozen=True):
    """A request for a new instrument: its label, manufacturer and model, kind, and serial number."""

    label: _Text
    name: _Text
    type: Literal["mbe", "cvd", "pvd", "sputter", "ald", "pld"]
    serial_id: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Instrument(msgspec.Struct, frozen=True):
    """An instrument of the list. The number of one that was deleted is not given again."""

    synth_source_id: int
    source_name: str
    synth_source_type: str
    source_manufacturer: str | None = None
    source_model: str | None = None
    serial_id: str | None = None


class Instruments(msgspec.Struct, frozen=True):
    """The document: the instruments, and the number of the next one."""

    instruments: tuple[Instrument, ...] = ()
    following: int = 1


@routes.get(INSTRUMENTS_PATH)
@access(Right.READ, browser=False)
async def instruments(request: web.Request) -> web.Response:
    """``GET /instruments/synthesis``: all growth instruments, in the order in which they were added."""
    content = await asyncio.to_thread(context_of(request).documents.read, INSTRUMENTS_FILE)
    return json_reply(msgspec.to_builtins(_decoded(content).instruments))


@routes.post(INSTRUMENTS_PATH)
@access(Right.WRITE, browser=False)
async def add_instrument(request: web.Request) -> web.Response:
    """``POST /instruments/synthesis``: adds one; replies with it, and its ``synth_source_id``."""
    wanted = await read_json(request, NewInstrument)
    maker, _, model = wanted.name.strip().partition(" ")

    def add(content: bytes | None) -> bytes:
        known = _decoded(content)
        if len(known.instruments) >= MAX_INSTRUMENTS:
            raise HttpError(409, f"There are {MAX_INSTRUMENTS} instruments already: delete some first.")
        one = Instrument(
            known.following, wanted.label, wanted.type, maker or None, model.strip() or None, wanted.serial_id
        )
        return msgspec.json.encode(Instruments((*known.instruments, one), known.following + 1))

    content = await asyncio.to_thread(context_of(request).documents.change, INSTRUMENTS_FILE, add)
    return json_reply(msgspec.to_builtins(_decoded(content).instruments[-1]))


@routes.delete(INSTRUMENTS_PATH)
@access(Right.WRITE, browser=False)
async def delete_instruments(request: web.Request) -> web.Response:
    """``DELETE /instruments/synthesis?synthesis_instrument_ids=N``, repeatable: deletes all of them, or none."""
    wanted = request.query.getall("synthesis_instrument_ids", [])
    if not wanted or not all(text.isascii() and text.isdigit() and len(text) < 16 for text in wanted):
        raise HttpError(400, "synthesis_instrument_ids must be given, each a whole number.")
    numbers = {int(text) for text in wanted}

    def remove(content: bytes | None) -> bytes:
        known = _decoded(content)
        unknown = numbers - {one.synth_source_id for one in known.instruments}
        if unknown:
            raise HttpError(404, f"There is no instrument {', '.join(map(str, sorted(unknown)))}.")
        rest = tuple(one for one in known.instruments if one.synth_source_id not in numbers)
        return msgspec.json.encode(Instruments(rest, known.following))

    await asyncio.to_thread(context_of(request).documents.change, INSTRUMENTS_FILE, remove)
    return json_reply({"deleted": sorted(numbers)})


def _decoded(content: bytes | None) -> Instruments:
    if content is None:
        return Instruments()
    try:
        return msgspec.json.decode(content, type=Instruments)
    except (msgspec.MsgspecError, UnicodeError) as error:
        log.warning("%s is damaged, so there are no growth instruments: %s", INSTRUMENTS_FILE, error)
        return Instruments()
