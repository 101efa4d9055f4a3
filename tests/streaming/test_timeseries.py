"""Signals of instruments through the client: the same pipeline, spool and promises as frames."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream import AsyncTimeseriesStreamer, TimeseriesStreamer
from atomstream.errors import ChunkConflictError, ConfigError, StreamFinalizedError, UnknownStreamError
from atomstream.protocol import MAX_CHUNK_POINTS
from atomstream.streaming.signal_chunk import checked_points, rows_of_text, text_of
from tests.live_server import LiveServer, Serve, ThreadedServer

T = 1_735_689_600.0


@pytest.fixture
async def server(serve: Serve) -> LiveServer:
    return await serve()


@pytest.fixture
async def streamer(server: LiveServer) -> AsyncIterator[AsyncTimeseriesStreamer]:
    async with AsyncTimeseriesStreamer(server.api_key, server.url, 3, spool_min_free_bytes=0) as made:
        yield made


async def stored(server: LiveServer, data_id: str) -> dict[str, list[tuple[float, float]]]:
    """Points by channel as the server has them, times in s after T."""
    points = await server.context.tool_signals.read(data_id, lambda stream: stream.points())
    return {
        name: list(zip((one.times - T).tolist(), one.values.tolist(), strict=True))
        for name, one in points.items()
    }


async def test_every_verb(server: LiveServer, streamer: AsyncTimeseriesStreamer) -> None:
    """push, push_multi and run; lists, arrays, single points, None and bool; then finalize, with the report."""
    data_id = await streamer.initialize("Chamber log", physical_sample="GaN-1", tags=["night"])
    await streamer.push(data_id, 0, "T", [T, T + 1], np.array([500, 501]), "°C")
    await streamer.push_multi(
        data_id, 1, {"T": {"timestamps": [T + 2], "values": [None], "units": "°C"}, "open": ([T], [True])}
    )
    await streamer.run(data_id, "p", ((T + k, 1e-9 * k) for k in range(4)), "mbar")
    await streamer.run(data_id, "p", iter([([T + 4.0, T + 5.0], [4e-9, 5e-9])]))
    report = await streamer.finalize(data_id)
    found = await stored(server, data_id)
    assert found["p"] == [(float(k), 1e-9 * k) for k in range(6)]
    assert found["open"] == [(0.0, 1.0)]
    assert found["T"][:2] == [(0.0, 500.0), (1.0, 501.0)]
    assert math.isnan(found["T"][2][1])
    assert (report["chunks_uploaded"], report["lost"]) == (5, [])
    about = server.context.tool_signals.about(data_id)
    assert about.sample is not None
    assert (about.name, about.sample.name, about.status) == ("Chamber log", "GaN-1", "success")
    assert [tag.name for tag in about.tags] == ["night"]
    with pytest.raises(StreamFinalizedError):
        await streamer.push(data_id, 9, "T", [T], [1.0])


async def test_an_index_belongs_to_one_content(server: LiveServer, streamer: AsyncTimeseriesStreamer) -> None:
    """Equal points pushed again do nothing, others raise; each channel counts for itself (P5)."""
    data_id = await streamer.initialize()
    for _ in range(2):
        await streamer.push(data_id, 0, "a", [T], [1.0])
    await streamer.push(data_id, 0, "b", [T], [2.0])
    with pytest.raises(ChunkConflictError):
        await streamer.push(data_id, 0, "a", [T], [3.0])
    with pytest.raises(ChunkConflictError, match="with other channels"):
        await streamer.push_multi(data_id, 0, {"a": ([T], [1.0]), "c": ([T], [1.0])})
    await streamer.push(data_id, None, "a", None, 7.5)
    await streamer.finalize(data_id)
    found = await stored(server, data_id)
    assert found["a"][0] == (0.0, 1.0)
    assert found["a"][1][1] == 7.5
    assert found["b"] == [(0.0, 2.0)]


@pytest.mark.parametrize(
    ("timestamps", "values", "units", "error", "words"),
    [
        ([T], ["open"], None, TypeError, "For states such as 'open' send numbers"),
        (["now"], [1.0], None, TypeError, "timestamps of channel 'c' must be a number"),
        ([T, T], [1.0], None, ConfigError, "2 timestamps and 1 values"),
        ([1000 * T], [1.0], None, ConfigError, "in milliseconds"),
        ([math.nan], [1.0], None, ConfigError, "not in seconds since 1970"),
        ([], [], None, ConfigError, "no points"),
        ([[T]], [[1.0]], None, TypeError, "one-dimensional"),
        ([T], [1 + 2j], None, TypeError, "must be a number"),
        ([T], [1.0], 5, TypeError, "units of channel 'c' must be a str"),
        ([T], [1.0], "x" * 33, ConfigError, "at most 32 characters"),
        (iter([T]), [1.0], None, TypeError, "must be a number, or a list"),
    ],
)
def test_wrong_points_are_named(timestamps: Any, values: Any, units: Any, error: Any, words: str) -> None:
    """Each error names the channel, what came and what is allowed (P2)."""
    with pytest.raises(error, match=words):
        checked_points("c", timestamps, values, units)


async def test_what_is_refused_before_it_is_sent(streamer: AsyncTimeseriesStreamer) -> None:
    """Another unit, an unknown stream, wrong names, rules and keys: nothing is sent, the stream goes on."""
    with pytest.raises(UnknownStreamError):
        await streamer.push("other", 0, "a", [T], [1.0])
    with pytest.raises(ConfigError, match="is not a rule for marks"):
        await streamer.initialize(marks=["open the shutter"])
    data_id = await streamer.initialize()
    await streamer.push(data_id, 0, "a", [T], [1.0], "V")
    with pytest.raises(ConfigError, match="'V', and these points are in 'mV'"):
        await streamer.push(data_id, 1, "a", [T], [1.0], "mV")
    with pytest.raises(ConfigError, match="name of a channel"):
        await streamer.push(data_id, 1, " ", [T], [1.0])
    with pytest.raises(ConfigError, match="allowed are timestamps, values, units"):
        await streamer.push_multi(data_id, 1, {"a": {"time": [T], "values": [1.0]}})
    with pytest.raises(TypeError, match="at least one channel"):
        await streamer.push_multi(data_id, 1, {})
    with pytest.raises(TypeError, match="pairs"):
        await streamer.run(data_id, "a", [1.0])
    with pytest.raises(ConfigError, match=f"more than the {MAX_CHUNK_POINTS} of a chunk"):
        await streamer.push(data_id, 1, "a", np.full(MAX_CHUNK_POINTS + 1, T), np.zeros(MAX_CHUNK_POINTS + 1))
    assert (await streamer.finalize(data_id))["chunks_uploaded"] == 1


async def test_unusual_times_are_kept_and_noted(
    server: LiveServer, streamer: AsyncTimeseriesStreamer, caplog: pytest.LogCaptureFixture
) -> None:
    """Times that run backwards, and those of a clock that is ahead, are sent as given and logged once (P6)."""
    data_id = await streamer.initialize()
    now = streamer._streamer._current_session().signals.now_s()
    for index, times in enumerate(([T + 1], [T], [T - 1], [now + 3600], [now + 7200])):
        await streamer.push(data_id, index, "a", times, [float(index)])
    await streamer.finalize(data_id)
    assert [value for _, value in (await stored(server, data_id))["a"]] == [2.0, 1.0, 0.0, 3.0, 4.0]
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("run backwards" in line for line in logged) == 1
    assert sum("after the server's clock" in line for line in logged) == 1
    other = await streamer.initialize()
    with pytest.warns(UserWarning, match="1970"):
        await streamer.push(other, 0, "a", [5.0], [1.0])


async def test_many_points_in_one_push(server: LiveServer, streamer: AsyncTimeseriesStreamer) -> None:
    """A hundred thousand points are one chunk, and come back equal."""
    data_id = await streamer.initialize()
    values = np.random.default_rng(1).normal(size=100_000)
    await streamer.push(data_id, 0, "fast", T + np.arange(100_000) / 1000.0, values)
    await streamer.finalize(data_id)
    points = (await server.context.tool_signals.read(data_id, lambda stream: stream.points()))["fast"]
    np.testing.assert_array_equal(points.values, values)


async def test_an_outage_and_a_crash_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    """Points pushed while the server is unreachable are in the spool; the next streamer delivers them and ends the
    stream.
    """
    server = await serve()
    settings: dict[str, Any] = {"spool_dir": tmp_path, "spool_min_free_bytes": 0}
    async with AsyncTimeseriesStreamer(server.api_key, server.url, **settings) as streamer:
        data_id = await streamer.initialize()
        await streamer.push(data_id, 0, "a", [T], [1.0])
        await streamer.flush(data_id)
        await server.stop()
        await streamer.push_multi(data_id, 1, {"a": ([T + 1], [2.0]), "b": ([T], [3.0])})
        assert (await streamer.spool_status())["chunks_pending"] == 1
    await server.start()
    async with AsyncTimeseriesStreamer(server.api_key, server.url, **settings) as streamer:
        assert await streamer.resume(data_id) == 2
        await streamer.push(data_id, 2, "a", [T + 2], [4.0])
        report = await streamer.finalize(data_id)
        assert report["chunks_not_uploaded"] == 0
        found = await stored(server, data_id)
        assert found == {"a": [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)], "b": [(0.0, 3.0)]}


def test_the_blocking_streamer(serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """The same verbs as ordinary functions."""
    server = serve_in_thread()
    with TimeseriesStreamer(server.api_key, server.url, spool_min_free_bytes=0) as streamer:
        data_id = streamer.initialize()

        def readings() -> Iterator[tuple[float, float]]:
            for k in range(130):
                yield T + k, float(k)

        streamer.run(data_id, "a", readings(), "K")
        streamer.push(data_id, None, "b", T, 1.0)
        streamer.push_multi(data_id, 50, {"c": ([T], [1.0])})
        streamer.flush(data_id)
        report = streamer.finalize(data_id)
        assert report["chunks_uploaded"] == 5  # 60 + 60 + 10, and two
        assert streamer.spool_status()["chunks_pending"] == 0
        with pytest.raises(TypeError, match="iterable of points"):
            streamer.run(data_id, "a", 5)  # type: ignore[arg-type]


def test_the_text_of_a_chunk_is_that_of_the_protocol() -> None:
    """Keys, order and types are those of the recorded client; NaN is null; rows are padded with blanks."""
    one = checked_points("T", [T, T + 1], [500.0, math.inf], "C")
    text = text_of("id", 3, {"T": one}, several=False)
    assert json.loads(text) == {
        "data_id": "id",
        "chunk_index": 3,
        "channel_name": "T",
        "timestamps": [T, T + 1],
        "values": [500.0, None],
        "units": "C",
    }
    assert list(json.loads(text_of("id", 3, {"T": one}, several=True))) == [
        "data_id",
        "chunk_index",
        "channels",
    ]
    rows = rows_of_text(text)
    assert rows.shape == (1, 1, 4096)
    assert json.loads(rows.tobytes()) == json.loads(text)
