"""Requests about signals of instruments, as in the hosted service's protocol, and their values beside frames."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.mark_rules import MAX_RULE_CHARS, MAX_RULES, MarkRule
from atomstream.protocol import (
    ANNOUNCED,
    ANNOUNCEMENT,
    MAX_CHUNK_POINTS,
    MAX_NAME_CHARS,
    MAX_SIGNAL_BYTES,
    SIGNALS_CHUNK_PATH,
    SIGNALS_CHUNKS_PATH,
    SIGNALS_END_PATH,
    SIGNALS_PATH,
    SIGNALS_SERIES_PATH,
    STREAM_SIGNALS_PATH,
)
from atomstream.server.catalogue.database import iso_now
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.memory_budget import HOLDING
from atomstream.server.http.requests import UuidText, checked_name, number, read_bounded, read_json
from atomstream.server.http.responses import NO_STORE, HttpError, json_reply, send_pieces
from atomstream.server.people.rights import Right
from atomstream.server.routes.streams import project_of_new
from atomstream.server.signals.beside_frames import SampleChannel, sampled
from atomstream.server.signals.chunks import (
    F64,
    MAX_CHANNELS,
    ChannelBody,
    ChunkBody,
    MultiChunkBody,
    Points,
    stored_channels,
)
from atomstream.server.signals.registry import SignalRegistry
from atomstream.server.signals.stream import SignalsAbout, SignalStream
from atomstream.server.streams.registry import checked_id, unknown_stream

routes = web.RouteTableDef()
T = TypeVar("T")

NUMBER_BYTES: Final = 48
"""Bytes of memory that one number in the body of a chunk takes: decoded from JSON, and once more in the store."""
MAX_NEW_BYTES: Final = 1 << 18
"""Longest body that makes a stream: it may have 64 rules."""
MAX_BRACKETS: Final = 8 * MAX_CHANNELS
"""Most brackets of each kind in a chunk: two for each channel, and those in names."""
INLINE_BYTES: Final = 1 << 18
"""Longer bodies are decoded in a thread, so that they do not block the loop."""
PIECE_POINTS: Final = 10_000
"""Points that are encoded at once."""
MOST_SHOWN: Final = 20_000
"""Most points of a channel in the reply for a page."""

RuleText = Annotated[str, msgspec.Meta(max_length=2 * MAX_RULE_CHARS)]


class NewSignals(msgspec.Struct, frozen=True):
    """The body that creates a stream of signals."""

    stream_name: str | None = None
    points_per_chunk: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_POINTS)] = 60
    project_id: UuidText | None = None
    synth_source_id: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] | int | None = None
    marks: Annotated[tuple[RuleText, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    """An extension of this server: rules for marks in the frames of the same sample."""


@routes.post(SIGNALS_PATH)
@access(Right.WRITE, browser=False)
async def create_signals(request: web.Request) -> web.Response:
    """``POST /tool-state/stream/initialize``: create a stream of signals."""
    wanted, context = await read_json(request, NewSignals, most=MAX_NEW_BYTES), context_of(request)
    try:
        for text in wanted.marks:
            MarkRule.parse(text)
    except ConfigError as error:
        raise HttpError(400, str(error)) from None
    now = iso_now()
    name = (
        wanted.stream_name if (wanted.stream_name or "").strip() else f"Signals {now[:16].replace('T', ' ')}"
    )
    project = await project_of_new(context, principal_of(request), wanted.project_id)
    about = SignalsAbout(
        data_id=str(uuid.uuid4()),
        processed_data_id=str(uuid.uuid4()),
        name=checked_name(name or "", "stream"),
        made=now,
        last_updated=now,
        points_per_chunk=wanted.points_per_chunk,
        synth_source_id=wanted.synth_source_id,
        project=project,
        marks=wanted.marks,
    )
    await context.tool_signals.create(about)
    reply = {"data_id": about.data_id, "processed_data_id": about.processed_data_id}
    return json_reply(reply, headers={ANNOUNCEMENT: ANNOUNCED})


@routes.post(SIGNALS_CHUNK_PATH)
@access(Right.WRITE, browser=False)
async def store_chunk(request: web.Request) -> web.Response:
    """``POST /tool-state/stream/chunk``: points of one channel. 200 once they are on the disk."""
    body = await _read_chunk(request, ChunkBody)
    return await _store(request, body.data_id, body.chunk_index, {body.channel_name: body})


@routes.post(SIGNALS_CHUNKS_PATH)
@access(Right.WRITE, browser=False)
async def store_chunks(request: web.Request) -> web.Response:
    """``POST /tool-state/stream/chunk/multi``: points of several channels, all or none of them."""
    body = await _read_chunk(request, MultiChunkBody)
    return await _store(request, body.data_id, body.chunk_index, body.channels)


async def _read_chunk(request: web.Request, kind: type[T]) -> T:
    data = await read_bounded(request, MAX_SIGNAL_BYTES)
    # Counted before any of them takes memory, and time of the event loop: decoding does not release the interpreter.
    if max(data.count(b"{"), data.count(b"[")) > MAX_BRACKETS:
        raise HttpError(400, f"A chunk has at most {MAX_CHANNELS} channels. Nothing was stored.")
    numbers = data.count(b",") + 1
    if numbers > 2 * MAX_CHUNK_POINTS + 8 * MAX_CHANNELS:
        raise HttpError(413, f"A chunk has at most {MAX_CHUNK_POINTS} points. Nothing was stored; split it.")
    request[HOLDING].grow(len(data) + NUMBER_BYTES * numbers)
    if len(data) > INLINE_BYTES:
        return await asyncio.to_thread(_decoded, data, kind)
    return _decoded(data, kind)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise HttpError(400, "The JSON body is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise HttpError(
            400,
            f"The chunk is not valid: {error}. Times and values are numbers; null means no value. Nothing was stored.",
        ) from None


async def _store(
    request: web.Request, data_id: str, index: int, channels: dict[str, ChannelBody]
) -> web.Response:
    context = context_of(request)
    await context.tool_signals.find(data_id)
    about = context.tool_signals.about(data_id)
    if not principal_of(request).sees(about.project.id if about.project else None):
        raise unknown_stream(data_id)
    count = sum(len(channel.values) for channel in channels.values())
    if count > MAX_CHUNK_POINTS:
        raise HttpError(
            413,
            f"A chunk has at most {MAX_CHUNK_POINTS} points, this one has {count}. Nothing was stored; split it.",
        )
    checked = (
        await asyncio.to_thread(stored_channels, channels) if count > 10_000 else stored_channels(channels)
    )
    added = await context.tool_signals.add(about.data_id, index, checked)
    context.disk.note_stored()
    return json_reply(
        {"data_id": about.data_id, "chunk_index": index, "points": count, "repeated": not added}
    )


@routes.post(SIGNALS_END_PATH)
@access(Right.WRITE, browser=False)
async def end_signals(request: web.Request) -> web.Response:
    """``POST /tool-state/stream/{data_id}/finalize``: the stream is complete. Late chunks are stored nevertheless."""
    await read_bounded(request)
    data_id = checked_id(request.match_info["data_id"])
    about = await context_of(request).tool_signals.revise(
        data_id, lambda about: msgspec.structs.replace(about, status="success", last_updated=iso_now())
    )
    return json_reply({"data_id": about.data_id, "pipeline_status": about.status})


@routes.get(SIGNALS_SERIES_PATH)
@access(Right.READ)
async def signal_series(request: web.Request) -> web.StreamResponse:
    """``GET /tool-state/{data_id}/timeseries/``: all points, or the last ``last_n`` of each channel.

    ``channel`` (repeatable) names the channels to return.
    """
    signals, data_id = context_of(request).tool_signals, checked_id(request.match_info["data_id"])
    await signals.find(data_id)
    last_n = number(request.query.get("last_n"), "last_n", 1, 1 << 53)
    wanted = frozenset(request.query.getall("channel", ()))
    places = {
        name: (0 if last_n is None else max(0, count - int(last_n)), count)
        for name, count in (await signals.read(data_id, lambda stream: stream.lengths())).items()
        if not wanted or name in wanted
    }
    units = await signals.read(data_id, lambda stream: stream.units())
    reply = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8", **NO_STORE})
    return await send_pieces(request, reply, _series_pieces(signals, data_id, places, units))


async def _series_pieces(
    signals: SignalRegistry,
    data_id: str,
    places: dict[str, tuple[int, int]],
    units: dict[str, str | None],
) -> AsyncIterator[bytes]:
    """The reply in pieces: as one text, 5 million points would need a gigabyte."""
    orders: dict[str, int] = {}

    async def piece(name: str, start: int, stop: int, pick: Callable[[Points], F64]) -> bytes:
        def read(stream: SignalStream) -> tuple[bytes, int]:
            points, order = stream.piece(name, start, stop)
            return msgspec.json.encode(pick(points).tolist())[1:-1], order  # NaN becomes null

        text, order = await signals.read(data_id, read)
        if orders.setdefault(name, order) != order:
            raise ConnectionResetError("points with earlier times arrived meanwhile")
        return text

    begins = [await piece(name, start, start + 1, _times) for name, (start, stop) in places.items() if stop]
    begin = min(map(float, begins), default=0.0)
    picks: dict[str, Callable[[Points], F64]] = {
        "relative_time_seconds": lambda points: points.times - begin,
        "unix_timestamp_ms": lambda points: np.rint(1000.0 * points.times),
        "values": lambda points: points.values,
    }
    yield b'{"properties":{'
    for number_of, (name, (first, end)) in enumerate(places.items()):
        yield (b"," if number_of else b"") + msgspec.json.encode(name) + b":{"
        for what, pick in picks.items():
            yield msgspec.json.encode(what) + b":["
            for start in range(first, end, PIECE_POINTS):
                text = await piece(name, start, min(start + PIECE_POINTS, end), pick)
                yield (b"," if start > first else b"") + text
            yield b"],"
        yield b'"units":' + msgspec.json.encode(units.get(name)) + b"}"
    yield b"}}"


def _times(points: Points) -> F64:
    return points.times


@routes.get(STREAM_SIGNALS_PATH)
@access(Right.READ)
async def signals_of_stream(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/signals``: the channels of the same sample during a stream of frames.

    ``points`` is the most points of a channel (default 2000); ``after`` and ``before`` limit the time, in s from the
    stream's start. Of too many points the smallest and largest of each part are returned.
    """
    context = context_of(request)
    archive = await context.streams.archive(checked_id(request.match_info["data_id"]))
    about = await context.streams.about(request.match_info["data_id"])
    most = int(number(request.query.get("points"), "points", 10, MOST_SHOWN) or 2000)
    after = number(request.query.get("after"), "after", -1e9, 1e9)
    before = number(request.query.get("before"), "before", -1e9, 1e9)
    origin_ms = archive.origin_unix_ms
    if about.sample is None or origin_ms is None:
        return json_reply({"origin_unix_ms": origin_ms, "channels": []})
    channels = await context.beside_frames.channels(about.sample.id)
    origin = origin_ms / 1000.0

    def reply() -> web.Response:
        end = float(np.nanmax(archive.results.times_at(_last_frame(archive)), initial=0.0))
        span = origin + (0.0 if after is None else after), origin + (end if before is None else before)
        shown = [_shown(one, origin, span, most) for one in channels]
        return json_reply({"origin_unix_ms": origin_ms, "end_seconds": end, "channels": shown})

    return await context.readers.facts.run(request, reply)


def _last_frame(archive: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    runs = archive.frame_runs()
    return np.asarray(runs.frames(np.array([len(runs) - 1], dtype=np.int64)), dtype=np.int64)


def _shown(channel: SampleChannel, origin: float, span: tuple[float, float], most: int) -> dict[str, Any]:
    points = sampled(channel.points, *span, most)
    return {
        "name": channel.name,
        "column": channel.column,
        "units": channel.units,
        "data_id": channel.signals_id,
        "time_seconds": (points.times - origin).tolist(),
        "values": points.values.tolist(),
    }
