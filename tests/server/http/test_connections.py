"""Connections: a bound overall and per address, idle ones make room, and clients that do not read are cut off."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from atomstream.server.http.connections import (
    BUSY,
    IDLE,
    KEPT_UNUSED,
    KNOWN,
    Connection,
    ConnectionGuard,
    address_of,
)
from atomstream.server.http.handles import PER_STREAM, HandleShares
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames, raw_connection, request_head


class Transport(asyncio.Transport):
    """A transport of which the test sets the address and the bytes that wait."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.aborted = False
        self.waiting = 0

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Handler:
    """Stands for aiohttp's handler, which these tests do not need."""

    def connection_made(self, _: Any) -> None: ...

    def connection_lost(self, _: Any) -> None: ...

    def data_received(self, _: bytes) -> None: ...

    def resume_writing(self) -> None: ...


def make_guard(total: int = 1000, per_address: int = 1000) -> ConnectionGuard:
    guard = ConnectionGuard(total, per_address, min_rate=1000, window_s=30.0)
    guard.serve(cast("Any", Handler))
    return guard


def connect(guard: ConnectionGuard, address: str = "10.0.0.1") -> tuple[Connection, Transport]:
    """A new connection."""
    connection, transport = guard(), Transport(address)
    connection.connection_made(transport)
    return connection, transport


async def test_half_sent_requests_make_room_first() -> None:
    """At the bound the oldest half-sent request is closed, then unused and idle connections, those with a key last."""
    guard = make_guard(total=5)
    made = [connect(guard) for _ in range(5)]
    made[0][0].move(KNOWN)
    made[1][0].move(IDLE)
    made[2][0].move(BUSY)
    made[3][0].data_received(b"GET / HTTP/1.1\r\n")
    order = []
    for _ in range(5):
        connection, _ = connect(guard)
        connection.move(BUSY)
        order += [k for k, (_, transport) in enumerate(made) if transport.aborted and k not in order]
    assert order == [3, 1, 4, 0]
    assert len(guard) == 5
    assert connect(guard)[1].aborted


async def test_the_next_request_of_a_client_with_a_key_is_kept() -> None:
    """A connection with a valid key is not closed while the head of the next request arrives, also if nobody else sends
    one."""
    guard = make_guard(total=100)
    client, transport = connect(guard)
    client.known = True
    client.move(KNOWN)
    client.data_received(b"PUT /upload/")
    for _ in range(500):
        connect(guard)
    assert not transport.aborted


async def test_connections_from_before_a_flood_stay() -> None:
    """Unused connections that were open before others came are not closed for new ones."""
    guard = make_guard(total=200)
    before = [connect(guard) for _ in range(KEPT_UNUSED)]
    for _ in range(1000):
        connect(guard)
    assert not any(transport.aborted for _, transport in before)
    assert len(guard) == 200


async def test_one_address_takes_no_place_of_another() -> None:
    """At the bound of an address its own connections make room; at the total bound those of the largest one."""
    guard = make_guard(total=12, per_address=10)
    (_, friend) = connect(guard, "10.0.0.2")
    flood = [connect(guard, "10.0.0.1") for _ in range(30)]
    for _ in range(5):
        connect(guard, "10.0.0.3")
    assert not friend.aborted
    assert sum(not transport.aborted for _, transport in flood) < 10
    assert len(guard) == 12


async def test_a_closed_connection_is_counted_once() -> None:
    """A connection that was closed for another one and then ends leaves the count of its address right."""
    guard = make_guard(per_address=1)
    first, _ = connect(guard)
    second, _ = connect(guard)
    first.connection_lost(None)
    assert len(guard) == 1
    second.connection_lost(None)
    assert len(guard) == 0
    assert not connect(guard)[1].aborted


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """A reply that waits for the window's length with hardly a byte read ends the connection; slow reading does not."""
    guard = make_guard()
    stuck, slow, quick, resumed = (connect(guard) for _ in range(4))
    for now in range(0, 60, 5):
        stuck[1].waiting = 100_000 - now
        slow[1].waiting = 1_000_000 - 2000 * now
        quick[1].waiting = 100_000 if now % 10 else 0
        resumed[1].waiting = 60_000  # filled again each time
        resumed[0].resume_writing()
        guard.cut_off(100.0 + now)
    assert [transport.aborted for _, transport in (stuck, slow, quick, resumed)] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("2001:db8::1:2:3:4", 5, 0, 0), "2001:db8::"),
        (("fe80::1%eth0", 5, 0, 0), "fe80::"),
        (None, ""),
        ("", ""),
    ],
)
def test_addresses(peer: Any, address: str) -> None:
    """IPv6 addresses with the same first 64 bits count as one client."""
    assert address_of(peer) == address


def test_handles_are_left_for_the_archive() -> None:
    """Connections and open streams together leave an eighth of the handles."""
    for handles in (64, 256, 1024, 1 << 14):
        shares = HandleShares.of(handles, 1 << 20, 1 << 20)
        assert shares.connections + PER_STREAM * shares.streams <= handles * 7 // 8
    assert HandleShares.of(1 << 20, 2048, 256) == HandleShares(2048, 256)


async def test_uploads_go_on_during_a_flood(serve: Serve) -> None:
    """With far more half-sent requests than connections are allowed, chunks and new clients are served."""
    server = await serve(max_connections=40, max_connections_per_address=30)
    async with WireClient(server) as client, AsyncExitStack() as stack:
        data_id = await client.create()
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
        for _ in range(60):
            _, writer = await stack.enter_async_context(raw_connection(server.url))
            writer.write(b"GET / HTTP/1.1\r\nX-A: b\r\n")
        for index in (1, 2):
            assert (await client.send(data_id, index, make_frames(4, seed=index)))[0] == 200


async def test_a_client_that_never_reads_is_closed(serve: Serve) -> None:
    """Replies that nobody reads are given up: the connection ends, and with it the request."""
    server = await serve(reply_window_s=0.2, reply_min_rate=1 << 20)
    async with raw_connection(server.url) as (reader, writer):
        request = request_head("GET", f"{server.url}/dashboard/static/js/stream.js", {})
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request * 600)
        ended = asyncio.Event()
        asyncio.get_running_loop().call_later(0, _watch, server, ended)
        await ended.wait()


def _watch(server: Any, ended: asyncio.Event) -> None:
    if not len(server.running.connections):
        ended.set()
    else:
        asyncio.get_running_loop().call_later(0.05, _watch, server, ended)
