"""The calls that read what a server has: its streams, samples and projects, frames and results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgpack

from atomstream import protocol
from atomstream.errors import ServerBusyError
from atomstream.protocol import DIMS_HEADER, MAX_COLUMN_ROWS
from atomstream.records import Json
from atomstream.service.replies import Call
from atomstream.service.transport import Transport

T = TypeVar("T")

PAGE: Final = 1000
MAX_DOCUMENT_BYTES: Final = 128 << 20
"""Largest JSON reply that is read; one with all values of a stream has some 20 MB."""
MAX_SHARD_BYTES: Final = protocol.MAX_SHARD_BYTES


class ReadingApi:
    """One attempt per call; the errors are those of ``ServiceApi``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def newest(self) -> list[dict[str, Any]]:
        """The newest entry of ``GET /data_entries/``; empty if there is none."""
        call = Call("find the newest stream", "GET", protocol.ENTRIES_PATH, "limit=1")
        return (await self._transport.call(call)).parse(_entries)[:1]

    async def entries(self, filters: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
        """All entries of ``GET /data_entries/`` with these filters, the newest first; in pages."""
        found: list[dict[str, Any]] = []
        while True:
            query = dict(filters) | {"limit": str(PAGE)} | ({"after": found[-1]["data_id"]} if found else {})
            call = Call("list the streams", "GET", protocol.ENTRIES_PATH, urlencode(query, doseq=True))
            page = (await self._transport.call(call)).parse(_entries)
            new = page if not found else [one for one in page if one["data_id"] != found[-1]["data_id"]]
            found += new
            if len(page) < PAGE or not new:
                return found

    async def items(self, what: str, path: str) -> list[dict[str, Any]]:
        """A list of maps, such as the samples or the projects."""
        return (await self._transport.call(Call(f"list the {what}", "GET", path))).parse(_maps)

    async def document(
        self, what: str, path: str, query: Mapping[str, str | Sequence[str]], kind: type[Any]
    ) -> Any:
        """A JSON reply of this kind, dict or list (of maps), which may be large."""
        call = Call(what, "GET", path, urlencode(dict(query), doseq=True))
        body = bytearray()

        def add(piece: bytes) -> None:
            if len(body) + len(piece) > MAX_DOCUMENT_BYTES:
                raise ServerBusyError(f"Could not {what}: the reply is larger than any of a server is.")
            body.extend(piece)

        await self._transport.download(call, add)
        return self.taken(what, lambda: (_maps if kind is list else _map)(json.loads(body)))

    async def change(
        self,
        what: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] = {},
    ) -> dict[str, Any]:
        """A small request that changes something, and its reply."""
        content = None if body is None else json.dumps(body).encode()
        return (await self._transport.call(Call(what, method, path, urlencode(query), content))).parse(_map)

    @staticmethod
    def taken(what: str, take: Callable[[], T]) -> T:
        """Return ``take()``, which reads a reply. Raises ServerBusyError if the reply has another form."""
        try:
            return take()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ServerBusyError(f"Could not {what}: the reply can't be read ({error!r}).") from None

    async def analysis(self, data_id: str) -> dict[str, Any]:
        """``GET /rheed/stream/{data_id}/analysis``: geometry, newest values, segments, events (atomstream only)."""
        path = protocol.path(protocol.ANALYSIS_PATH, data_id=data_id)
        call = Call(f"read the results of stream {data_id}", "GET", path)
        return (await self._transport.call(call)).parse(_map)

    async def signals(self, data_id: str, channels: Sequence[str]) -> dict[str, Any]:
        """``GET /tool-state/{data_id}/timeseries/``: the points of each channel, by name."""
        path = protocol.path(protocol.SIGNALS_SERIES_PATH, data_id=data_id)
        query = urlencode({"channel": list(channels)}, doseq=True)
        call = Call(f"read the signals {data_id}", "GET", path, query)
        body = bytearray()
        await self._transport.download(call, body.extend)
        try:
            return _map(_map(json.loads(body))["properties"])
        except (ValueError, KeyError, RecursionError) as error:
            raise ServerBusyError(f"Could not {call.what}: the reply can't be read ({error!r}).") from None

    async def chunk(self, data_id: str, index: int) -> tuple[tuple[int, int, int, int], str, bytes]:
        """A stored chunk: (frames, height, width, frames of the shard), dtype, and the shard's bytes."""
        path = protocol.path(protocol.CHUNK_PATH, data_id=data_id, index=str(index))
        call = Call(f"read chunk {index} of stream {data_id}", "GET", path)
        body = bytearray()

        def add(piece: bytes) -> None:
            if len(body) + len(piece) > MAX_SHARD_BYTES:
                raise ServerBusyError(f"Could not {call.what}: the reply is larger than a chunk can be.")
            body.extend(piece)

        headers = await self._transport.download(call, add)
        try:
            *numbers, dtype = headers.get(DIMS_HEADER, "").split(",")
            frames, height, width, size = (int(number) for number in numbers)
        except ValueError:
            raise ServerBusyError(f"Could not {call.what}: the reply has no {DIMS_HEADER}.") from None
        return (frames, height, width, size), dtype, bytes(body)

    async def picture(self, data_id: str) -> bytes:
        """The newest picture of a stream: ``PICTURE_HEADER``, then the rows (atomstream only)."""
        path = protocol.path(protocol.PICTURE_PATH, data_id=data_id)
        body = bytearray()
        await self._transport.download(
            Call(f"read the picture of stream {data_id}", "GET", path), body.extend
        )
        return bytes(body)

    async def columns(self, data_id: str, first: int, names: Sequence[str]) -> dict[str, Any]:
        """Results of up to ``MAX_COLUMN_ROWS`` stored frames after the first ``first`` ones."""
        path = protocol.path(protocol.COLUMNS_PATH, data_id=data_id)
        query = urlencode({"first": first, "count": MAX_COLUMN_ROWS, "name": list(names)}, doseq=True)
        call = Call(f"read the results of stream {data_id}", "GET", path, query)
        body = bytearray()
        await self._transport.download(call, body.extend)
        try:
            return _map(msgpack.unpackb(body))
        except (ValueError, msgpack.UnpackException) as error:
            raise ServerBusyError(f"Could not {call.what}: the reply can't be read ({error}).") from None


def _map(data: Json) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError("expected an object")
    return data


def _maps(data: Json) -> list[dict[str, Any]]:
    if not isinstance(data, list):
        raise ValueError("expected a list")
    return [_map(item) for item in data]


def _entries(data: Json) -> list[dict[str, Any]]:
    entries = _maps(data)
    if not all(isinstance(one.get("data_id"), str) for one in entries):
        raise ValueError("an entry has no data_id")
    return entries
