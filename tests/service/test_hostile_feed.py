"""A hostile or broken server: no redirect gets the key, and every reply ends in a typed error at a bounded cost."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgpack
import pytest
from aiohttp import WSMsgType, web
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import RejectedError, ServerBusyError
from atomstream.service import reply_limits, transport
from atomstream.service.api import ServiceApi
from atomstream.service.reply_limits import MAX_OBJECTS, parse_json, unpack
from atomstream.streaming.subscription import MAX_ANGLES, MAX_LOGGED_CHARS, MAX_PAUSE_S, ResultSubscription
from tests.service.recorder import EVENT, Recorder, calling, recording

FEED = "GET /rheed/stream/d/feed"
HELLO = {"type": "hello", "seq": 1}
BATCH = {
    "type": "batch", "seq": 1, "start": 0, "count": 1, "columns": {"time_seconds": bytes(8)}, "values": {},
    "events": [], "segments": [], "views": [], "final": False,
}  # fmt: skip
VALUE = {"value": 1.0, "sigma": None, "unit": "", "why": "", "note": ""}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
    | st.text(max_size=300) | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=300)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
)  # fmt: skip


class StoppedError(Exception):
    """Ends a subscription where it would wait before its next attempt."""


async def stop(_seconds: float) -> None:
    """Instead of a pause."""
    raise StoppedError


def feeding(*messages: bytes) -> Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]:
    """Answers the handshake, sends ``messages``, and waits for the client to leave."""

    async def answer(request: web.Request, _body: bytes) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("atomstream.msgpack",))
        await socket.prepare(request)
        for message in messages:
            await socket.send_bytes(message)
        await socket.receive()
        return socket

    return answer


async def read_feed(api: ServiceApi) -> list[dict[str, Any]]:
    """All messages of the feed."""
    async with aclosing(api.results.feed("d", 0)) as messages:
        return [message async for message in messages]


async def no_batch(subscription: ResultSubscription) -> None:
    """Follow ``subscription``, which must yield nothing."""
    async with aclosing(subscription.batches()) as batches:
        async for batch in batches:
            raise AssertionError(batch)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_gets_the_key(status: int) -> None:
    """A handshake that redirects to another host is an error; that host is not asked, so it gets no key."""
    async with recording() as other, recording() as server, calling(server.url) as api:
        elsewhere = {"Location": f"{other.url}/elsewhere"}
        server.on(FEED, lambda _request, _body: web.Response(status=status, headers=elsewhere))
        with pytest.raises(RejectedError, match="redirects are not followed") as caught:
            await read_feed(api)
        assert server.requests[0].headers["x-api-key"]
    assert caught.value.status == status
    assert other.requests == []


async def test_pings_without_end_are_an_error() -> None:
    """A server that sends only pings and no messages can't keep its reader waiting for ever."""

    async def flood(request: web.Request, _body: bytes) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("atomstream.msgpack",), autoping=False)
        await socket.prepare(request)
        for _ in range(10 * transport.MAX_CONTROL_FRAMES):
            await socket.ping(b"a" * 125)
        while (await socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            pass
        return socket

    async with recording() as server, calling(server.url) as api:
        server.on(FEED, flood)
        with pytest.raises(ServerBusyError, match="control frames without end"):
            await read_feed(api)


async def test_pings_between_messages_are_answered() -> None:
    """A few pings are answered and change nothing."""
    answers: list[bytes] = []

    async def ping(request: web.Request, _body: bytes) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("atomstream.msgpack",), autoping=False)
        await socket.prepare(request)
        await socket.ping(b"one")
        answers.append((await socket.receive()).data)
        await socket.send_bytes(msgpack.packb(HELLO))
        await socket.close()
        return socket

    async with recording() as server, calling(server.url) as api:
        server.on(FEED, ping)
        assert await read_feed(api) == [HELLO]
    assert answers == [b"one"]


async def test_a_server_that_ignores_the_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a feed does not wait for a server that takes no part in the closing handshake."""
    monkeypatch.setattr(transport, "CLOSE_S", 0.05)

    async def ignore(request: web.Request, _body: bytes) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("atomstream.msgpack",), autoclose=False)
        await socket.prepare(request)
        await socket.send_bytes(msgpack.packb(HELLO))
        assert (await socket.receive()).type is WSMsgType.CLOSE  # autoclose=False: it is not answered
        await left.wait()
        return socket

    left = asyncio.Event()
    async with recording() as server, calling(server.url) as api:
        server.on(FEED, ignore)
        async with aclosing(api.results.feed("d", 0)) as messages:
            assert await anext(messages) == HELLO
        left.set()


@pytest.mark.parametrize(
    "message",
    [
        {"a": 1},
        {"type": "hello"},
        {"type": "hello", "seq": "x"},
        {"type": "hello", "seq": 1 << 60},
        {"type": "lost", "count": 1, "last": None},
        {"type": "missing", "missing": 5},
        {"type": "missing", "missing": [5]},
        {"type": "batch", "seq": 1},
        {**BATCH, "seq": []},
        {**BATCH, "count": -5},
        {**BATCH, "count": 5},
        {**BATCH, "start": 1 << 62},
        {**BATCH, "columns": {}},
        {**BATCH, "columns": {"time_seconds": b"abc"}},
        {**BATCH, "columns": 3},
        {**BATCH, "values": {"growth_rate_ml_s": 5}},
        {**BATCH, "values": {"growth_rate_ml_s": {**VALUE, "value": "x"}}},
        {**BATCH, "values": {"growth_rate_ml_s": {**VALUE, "unit": 5}}},
        {**BATCH, "events": [{"id": 1}]},
        {**BATCH, "events": [{**EVENT, "time_s": "x"}]},
        {**BATCH, "events": [{**EVENT, "value": float("nan")}]},
        {**BATCH, "events": 5},
        {**BATCH, "values": {"growth_rate_ml_s": {**VALUE, "value": True}}},
        {**BATCH, "values": {"growth_rate_ml_s": {**VALUE, "sigma": float("inf")}}},
        {**BATCH, "values": {b"growth_rate_ml_s": VALUE}},
        {**BATCH, "segments": [5]},
        {**BATCH, "segments": {"rate": 5}},
        {**BATCH, "views": "abc"},
        {**BATCH, "count": "1"},
        {**BATCH, "start": 0.5},
        {**BATCH, "seq": True},
        {**BATCH, "made_unix_ms": "now"},
        {**BATCH, "profile": "abcd"},
        {**BATCH, "profile": [1.0]},
    ],
    ids=str,
)
async def test_a_message_of_another_shape_is_a_typed_error(
    message: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What is not a message of the protocol pauses the subscription with a ServerBusyError, as a break does."""
    async with recording() as server, calling(server.url) as api:
        server.on(FEED, feeding(msgpack.packb(message)))
        subscription = ResultSubscription(api.results, "d", sleep=stop)
        with caplog.at_level(logging.WARNING, "atomstream"), pytest.raises(StoppedError):
            await no_batch(subscription)
    assert "malformed message" in caplog.text


@pytest.mark.parametrize(
    "series",
    [
        [{"angle": 0, "series": [5]}],
        [{"angle": 0, "series": [{"frame_number": "x"}]}],
        [{"angle": "x", "series": [{"frame_number": 1}]}],
        [{"angle": float("nan"), "series": [{"frame_number": 1}]}],
        [{"angle": 0, "series": [{"frame_number": 10**400}]}],
        [{"angle": 0, "series": [{"frame_number": 1, "x": 10**400}]}],
        [{"angle": angle, "series": [{"frame_number": 1}]} for angle in range(MAX_ANGLES + 2)],
    ],
)
async def test_a_series_of_another_shape_is_a_typed_error(
    series: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A series in an invalid form, from a server without a feed, is logged as a malformed message."""
    async with recording() as server, calling(server.url) as api:
        server.on_json("GET /rheed/timeseries/d/", {"series_by_angle": series})
        subscription = ResultSubscription(api.results, "d", announced=False, sleep=stop)
        with caplog.at_level(logging.WARNING, "atomstream"), pytest.raises(StoppedError):
            await no_batch(subscription)
    assert "malformed message" in caplog.text


@pytest.mark.parametrize("first", [0, 0.0])
async def test_a_malformed_series_costs_no_points_of_another(first: float) -> None:
    """If the series of one azimuth is malformed in one reply, its points and those of the others come with the next."""
    good = {"angle": 0, "series": [{"frame_number": first, "x": 1.0}, {"frame_number": 12.0, "x": 2.0}]}
    other = {"angle": 90, "series": [{"frame_number": 5, "x": 3.0}]}
    bad = {"angle": 90, "series": [{"frame_number": 5.5}]}
    replies = [[good, bad], [good, bad], [good, other]]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise StoppedError

    def answer(_request: web.Request, _body: bytes) -> web.Response:
        return web.json_response({"series_by_angle": replies.pop(0) if len(replies) > 1 else replies[0]})

    async with recording() as server, calling(server.url) as api:
        server.on("GET /rheed/timeseries/d/", answer)
        server.on_json("GET /data_entries/", [{"pipeline_status": "success"}])
        subscription = ResultSubscription(api.results, "d", announced=False, sleep=pause)
        async with aclosing(subscription.batches()) as batches:
            found = [(batch.angle_deg, batch.start, batch.count) async for batch in batches]
    assert found == [(0.0, 0, 2), (90.0, 5, 1)]


async def test_repeated_malformed_series_are_warned_about_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server whose series are always malformed is asked again after longer and longer pauses, with one warning."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise StoppedError

    monkeypatch.setattr("atomstream.streaming.subscription.delay_s", lambda failures, _: float(failures))
    async with recording() as server, calling(server.url) as api:
        server.on_json("GET /rheed/timeseries/d/", {"series_by_angle": [{"angle": "x", "series": []}]})
        subscription = ResultSubscription(api.results, "d", announced=False, sleep=pause)
        with caplog.at_level(logging.WARNING, "atomstream"), pytest.raises(StoppedError):
            await no_batch(subscription)
    assert len(caplog.records) == 1
    assert pauses == [min(float(failures), MAX_PAUSE_S) for failures in range(8)]


def empty_maps(server: Recorder) -> Callable[[ServiceApi], Awaitable[Any]]:
    """15 MB of empty maps as a message."""
    server.on(FEED, feeding(b"\xdd" + (15_000_000).to_bytes(4, "big") + b"\x80" * 15_000_000))
    return read_feed


def empty_objects(server: Recorder) -> Callable[[ServiceApi], Awaitable[Any]]:
    """15 MB of empty objects as a reply."""
    body = b"[" + b",".join([b"{}"] * 5_000_000) + b"]"
    server.on("GET /tags/", lambda _request, _body: web.Response(body=body))
    return lambda api: api.list_tags()


@pytest.mark.parametrize("hostile", [empty_maps, empty_objects])
async def test_millions_of_objects_are_not_decoded(
    hostile: Callable[[Recorder], Callable[[ServiceApi], Awaitable[Any]]],
) -> None:
    """A body of 15 MB that would take a gigabyte as Python objects is an error that needs a few times 15 MB."""
    async with recording() as server, calling(server.url) as api:
        ask = hostile(server)
        tracemalloc.start()
        try:
            with pytest.raises(ServerBusyError, match=r"too many items|more than \d+ objects"):
                await ask(api)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 150_000_000


@given(PLAIN)
def test_counting_changes_nothing(value: Any) -> None:
    """A large message within the limit is decoded as a small one is."""
    body = msgpack.packb(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply_limits, "SMALL_BYTES", -1)
        assert unpack(body) == msgpack.unpackb(body)


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 60))
def test_each_object_counts(values: list[int], limit: int) -> None:
    """A message with one object more than the limit is refused, and one with as many is not."""
    small = [value % 7 for value in values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply_limits, "SMALL_BYTES", -1)
        patch.setattr(reply_limits, "MAX_OBJECTS", limit)
        if len(small) + 1 <= limit:
            assert unpack(msgpack.packb(small)) == small
        else:
            with pytest.raises(ValueError, match=r"objects|max_array_len"):
                unpack(msgpack.packb(small))


@given(st.binary(max_size=400))
def test_junk_is_a_value_error(body: bytes) -> None:
    """Any bytes decode or are a ValueError."""
    for read in (unpack, parse_json):
        try:
            read(body)
        except ValueError:
            continue


def test_announced_sizes_cost_nothing() -> None:
    """An array that announces more items than the limit is refused before memory is taken for them."""
    with pytest.raises(ValueError):
        unpack(b"\xdd" + (MAX_OBJECTS + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError):
        unpack(b"\x91" * 1_000_000)


async def test_reasons_without_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A server that invents reasons for missing chunks fills neither the log nor the memory."""
    chunks = "1-2,\n" * 10_000
    reasons = [{"why": f"reason {number}", "chunks": chunks, "count": 1} for number in range(50)]
    missing = msgpack.packb({"type": "missing", "reanalysis": False, "missing": reasons})
    async with recording() as server, calling(server.url) as api:
        server.on(FEED, feeding(missing, missing, msgpack.packb({"type": "end", "seq": 1})))
        with caplog.at_level(logging.WARNING, "atomstream"):
            await no_batch(ResultSubscription(api.results, "d", sleep=stop))
    (record,) = [one for one in caplog.records if "do not include chunks" in one.getMessage()]
    assert len(record.getMessage()) < MAX_LOGGED_CHARS + 300
    assert "\n" not in record.getMessage()
