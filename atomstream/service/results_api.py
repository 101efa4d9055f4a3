"""The calls for results: the feed, the series of servers without a feed, events and calibration."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp

from atomstream import protocol
from atomstream.errors import ServerBusyError
from atomstream.protocol import MSGPACK_SUBPROTOCOL, SILENCE_S
from atomstream.records import Json
from atomstream.results import Event, event_from
from atomstream.service import payloads
from atomstream.service.replies import Call
from atomstream.service.reply_limits import unpack
from atomstream.service.transport import Transport, close_socket

Message = dict[str, Any]


class ResultsApi:
    """The results of one server. One attempt per call; the errors are those of ``ServiceApi``.

    ``server_id(data_id)`` is the id of the caller's stream on the server. It may raise a ``ServiceError``.
    """

    def __init__(self, transport: Transport, server_id: Callable[[str], str] = str) -> None:
        self._transport = transport
        self._server_id = server_id

    async def feed(self, data_id: str, after: int) -> AsyncGenerator[Message, None]:
        """The messages of a stream's feed after the record with number ``after``, until the server closes the feed.

        Raises:
            RejectedError: the server has no feed. NotFoundError: it has no such stream, or no feed.
            ConnectionFailedError: the connection broke, or no message arrived for ``SILENCE_S`` seconds.
        """
        path = protocol.path(protocol.FEED_PATH, data_id=self._server_id(data_id))
        call = Call(f"follow the results of stream {data_id}", "GET", path, query=f"after={after}")
        socket = await self._transport.open_socket(call, MSGPACK_SUBPROTOCOL)
        try:
            while True:
                message = await self._transport.receive(call, socket, SILENCE_S)
                if message is None:
                    return
                yield _read(call, message)
        finally:
            await close_socket(socket)

    async def series(self, data_id: str, last_n: int | None) -> list[Message]:
        """``series_by_angle`` of the protocol: the newest ``last_n`` points, or all."""
        path = protocol.path(protocol.TIMESERIES_PATH, data_id=self._server_id(data_id))
        query = "" if last_n is None else f"last_n={last_n}"
        call = Call(f"read the results of stream {data_id}", "GET", path, query=query)
        return (await self._transport.call(call)).parse(_series)

    async def status(self, data_id: str) -> str:
        """The status of the stream in the server's catalogue; "" if it is not listed."""
        query = f"data_ids={payloads.path_part(self._server_id(data_id))}"
        call = Call(f"read the status of stream {data_id}", "GET", protocol.ENTRIES_PATH, query=query)
        return (await self._transport.call(call)).parse(_status)

    async def mark(self, data_id: str, event: dict[str, Json]) -> Event:
        """Add an event to a stream. If it has an ``id``, repeated calls add it only once."""
        path = protocol.path(protocol.EVENTS_PATH, data_id=self._server_id(data_id))
        call = Call(f"mark an event of stream {data_id}", "POST", path, body=payloads.pack(event))
        return (await self._transport.call(call)).parse(event_from)

    async def calibrate(self, data_id: str, calibration: dict[str, Json]) -> None:
        """Replace the calibration of a stream. Repeated calls have no further effect."""
        path = protocol.path(protocol.CALIBRATION_PATH, data_id=self._server_id(data_id))
        call = Call(f"calibrate stream {data_id}", "PUT", path, body=payloads.pack(calibration))
        await self._transport.call(call)


def _read(call: Call, message: aiohttp.WSMessage) -> Message:
    try:
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise ValueError("it is not binary")
        return _object(unpack(message.data))
    except ValueError as error:
        raise ServerBusyError(
            f"Could not {call.what}: a message of the feed can't be read ({error})."
        ) from None


def _object(data: Any) -> Message:
    if not isinstance(data, dict):
        raise ValueError("expected an object")
    return data


def _series(data: Any) -> list[Message]:
    series = _object(data).get("series_by_angle")
    if not isinstance(series, list):
        raise ValueError("expected a list under 'series_by_angle'")
    return [entry for entry in map(_object, series) if isinstance(entry.get("series"), list)]


def _status(data: Any) -> str:
    if not isinstance(data, list):
        raise ValueError("expected a list")
    return str(_object(data[0]).get("pipeline_status") or "") if data else ""
