"""The reading clients against a real server: search, frames like an array, results for xarray, downloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from atomstream import AsyncClient, AsyncRHEEDStreamer, Client, RHEEDStreamer
from atomstream.errors import AuthenticationError, ClosedError, ConfigError, NotFoundError
from atomstream.testing import MemoryService
from tests.live_server import LiveServer, ThreadedServer

FPS = 60.0
CHUNK = 40
Serve = Callable[..., Awaitable[LiveServer]]


def noise(n: int, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 24, 32)).astype(dtype)


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


@pytest.fixture
def client(server: ThreadedServer) -> Iterator[Client]:
    with Client(server.api_key, server.url) as made:
        yield made


def stream(
    server: ThreadedServer,
    spool: Path,
    chunks: dict[int, np.ndarray],
    name: str = "growth",
    sample: str | None = None,
) -> str:
    """Stream these chunks and wait for the end of the analysis."""
    with RHEEDStreamer(server.api_key, server.url, spool_dir=spool, clock_sync=False) as streamer:
        with pytest.warns(UserWarning, match="chunk_size"):
            data_id = streamer.initialize(FPS, 0.0, CHUNK, name, sample)
        for index, frames in chunks.items():
            start = 1.7e12 + 1e3 * index * CHUNK / FPS
            streamer.push(data_id, index, frames, capture_start_ms_utc=start)
        streamer.mark(data_id, "here")
        streamer.finalize(data_id)
        for _ in streamer.results(data_id):
            pass
    return data_id


@pytest.mark.filterwarnings("ignore:Stream .* ended with:RuntimeWarning")
def test_frames_like_an_array(server: ThreadedServer, client: Client, tmp_path: Path) -> None:
    """Every way of indexing gives what numpy gives; a chunk that was never sent reads as 0."""
    whole = noise(4 * CHUNK - 7, 1, np.uint16)
    whole[CHUNK : 2 * CHUNK] = 0
    parts = {k: whole[k * CHUNK : (k + 1) * CHUNK] for k in (0, 2, 3)}
    data_id = stream(server, tmp_path, parts)
    frames = client.get(data_id).frames
    assert (frames.shape, frames.dtype, len(frames), frames.ndim) == (whole.shape, whole.dtype, len(whole), 3)
    np.testing.assert_array_equal(np.asarray(frames), whole)
    picks: list[Any] = [
        0,
        -1,
        np.int64(41),
        slice(35, 95),
        slice(None, None, 37),
        slice(None, None, -50),
        [3, 100, 3],
        (slice(80, 90), slice(2, 9), 4),
        (5, 7),
        (Ellipsis, 3),
        slice(500, 600),
    ]
    for pick in picks:
        np.testing.assert_array_equal(frames[pick], whole[pick])
    np.testing.assert_array_equal(
        frames[np.arange(len(whole)) % 50 == 9], whole[np.arange(len(whole)) % 50 == 9]
    )
    for several in (
        ([1, 150], [3, 4]),
        ([[0, 1], [150, 151]],),
        (2, slice(None), [1, 2]),
        None,
        (Ellipsis, 3),
    ):
        np.testing.assert_array_equal(frames[several], whole[several])
    with pytest.raises(IndexError, match="frame 153 of 153"):
        frames[153]
    with pytest.raises(IndexError, match="only integers"):
        frames[1.5]
    assert frames[100:].mean() == pytest.approx(whole[100:].mean())


def test_results_events_and_values(server: ThreadedServer, client: Client, tmp_path: Path) -> None:
    """Results are xarray with times and units; marks and newest values are typed records."""
    data_id = stream(server, tmp_path, {k: noise(CHUNK, k) for k in range(3)})
    growth = client.get(data_id)
    results = growth.results()
    assert results["saturated_fraction"].shape == (3 * CHUNK,)
    assert results["saturated_fraction"].attrs["units"] == "1"
    np.testing.assert_allclose(results["time"], np.arange(3 * CHUNK) / FPS, atol=1e-3)
    assert set(growth.results(["saturated_fraction", "none"]).data_vars) == {"saturated_fraction"}
    assert "here" in [event.label for event in growth.events if event.by == "user"]
    assert "undetermined" in str(growth.values["growth_rate_ml_s"])
    assert growth.info.length_s == pytest.approx(2.0)
    assert data_id in repr(growth)


def test_results_in_pages(
    server: ThreadedServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More frames than one reply holds: the pages join without a gap."""
    data_id = stream(server, tmp_path, {k: noise(CHUNK, k) for k in range(3)})
    at_once = client.get(data_id).results()
    monkeypatch.setattr("atomstream.service.reading_api.MAX_COLUMN_ROWS", 37)
    assert client.get(data_id).results().equals(at_once)


def test_search(server: ThreadedServer, client: Client, tmp_path: Path) -> None:
    """Each condition alone chooses; the list may have several pages."""
    names = ["GaN one", "GaN two", "STO"]
    ids = [stream(server, tmp_path, {0: noise(CHUNK)}, name, f"sample {name}") for name in names]
    assert {entry.data_id for entry in client.search()} == set(ids)
    assert {entry.name for entry in client.search("gan")} == {"GaN one", "GaN two"}
    assert [entry.name for entry in client.search(["GaN", "two"])] == ["GaN two"]
    for one in ([ids[2]], ids[2]):
        assert [entry.data_id for entry in client.search(data_ids=one)] == [ids[2]]
    assert len(client.search(None, status="all")) == 3
    assert client.search(last_updated=(None, datetime.now(UTC) - timedelta(hours=1))) == []
    (found,) = client.search("STO")
    assert (found.sample, found.fps, found.rpm, found.tags) == ("sample STO", FPS, 0.0, ())
    for sample in ([found.sample_id or ""], found.sample_id):
        assert client.search(physical_sample_ids=sample)[0].data_id == ids[2]
    assert client.search(growth_length=(10.0, None)) == []
    assert len(client.search(growth_length=(None, 10.0))) == 3
    now = datetime.now(UTC)
    assert client.search(upload_datetime=(now + timedelta(hours=1), None)) == []
    assert len(client.search(upload_datetime=(now - timedelta(hours=1), None))) == 3
    assert client.search(status="stream_error") == []
    assert {sample["name"] for sample in client.samples()} == {f"sample {name}" for name in names}
    assert client.projects() == []


def test_many_pages(
    server: ThreadedServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every entry is listed once."""
    monkeypatch.setattr("atomstream.service.reading_api.PAGE", 2)
    ids = {stream(server, tmp_path, {0: noise(CHUNK)}, f"s{k}") for k in range(5)}
    listed = [entry.data_id for entry in client.search()]
    assert (len(listed), set(listed)) == (5, ids)


def test_download(server: ThreadedServer, client: Client, tmp_path: Path) -> None:
    """The file is written whole, and none is replaced."""
    data_id = stream(server, tmp_path / "spool", {0: noise(CHUNK)})
    path = client.download(data_id, tmp_path / "growth.csv")
    assert len(pd.read_csv(path)) == CHUNK
    for wrong in (path, tmp_path / "no-ending", tmp_path / "no-folder" / "a.csv"):
        with pytest.raises(ConfigError, match=f"{wrong.name}|no-folder: no file can be written"):
            client.download(data_id, wrong)
    with pytest.raises(NotFoundError):
        client.download("7d3c4a0e-5a56-4b7e-9b1f-5d6f4c1e2a90", tmp_path / "none.csv")
    assert sorted(one.name for one in tmp_path.glob("*.csv*")) == ["growth.csv"]


def test_what_does_not_exist(client: Client, server: ThreadedServer) -> None:
    """An unknown stream and a wrong key are errors with a sentence."""
    with pytest.raises(NotFoundError, match="no stream nothing"):
        client.get("nothing")
    for wrong in ("", " ", None, 5, [5]):
        with pytest.raises(ConfigError, match="The id of a stream is"):
            client.get(wrong)  # type: ignore[arg-type]
    with Client("a-wrong-key", server.url) as stranger, pytest.raises(AuthenticationError):
        stranger.search()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keywords": 5}, "keywords is 5"),
        ({"data_ids": [5]}, r"data_ids is \[5\]"),
        ({"status": "done"}, "one of stream_active"),
        ({"growth_length": 5}, "a pair"),
        ({"growth_length": ("a", None)}, "number of seconds"),
        ({"growth_length": (float("nan"), None)}, "number of seconds"),
        ({"upload_datetime": ("2025-01-01", None)}, "datetime"),
        ({"last_updated": "today"}, "a pair"),
        ({"kind": "rheed"}, "frames, signals, all"),
    ],
)
async def test_wrong_conditions(arguments: dict[str, Any], message: str) -> None:
    """A condition of another type is an error before anything is sent; it never finds nothing, or everything."""
    async with AsyncClient("key", "http://127.0.0.1:1") as client:
        with pytest.raises(ConfigError, match=message):
            await client.search(**arguments)


def test_a_client_that_is_closed(server: ThreadedServer) -> None:
    """Calls of a closed client raise an error that names it; an invalid time limit is an error of the call."""
    client = Client(server.api_key, server.url)
    client.close()
    with pytest.raises(ClosedError, match="The client is closed"):
        client.search()
    with pytest.raises(ConfigError, match="request_timeout_s"):
        Client(server.api_key, server.url, request_timeout_s=0)


async def test_in_asyncio(serve: Serve, tmp_path: Path) -> None:
    """The calls of the blocking client work in asyncio, awaited."""
    server = await serve()
    async with AsyncRHEEDStreamer(
        server.api_key, server.url, spool_dir=tmp_path, clock_sync=False
    ) as streamer:
        with pytest.warns(UserWarning, match="chunk_size"):
            data_id = await streamer.initialize(FPS, 0.0, CHUNK)
        await streamer.push(data_id, 0, noise(CHUNK - 3))
        await streamer.finalize(data_id)
        async for _ in streamer.results(data_id):
            pass
    async with AsyncClient(server.api_key, server.url) as client:
        assert [entry.data_id for entry in await client.search()] == [data_id]
        np.testing.assert_array_equal(await client.chunk(data_id, 0), noise(CHUNK - 3))
        with pytest.raises(NotFoundError):
            await client.chunk(data_id, 1)
        assert (await client.analysis(data_id))["chunk_size"] == CHUNK
        growth = await client.get(data_id)
        frames = await growth.frames()
        assert (frames.shape, frames.dtype, len(frames)) == ((CHUNK - 3, 24, 32), np.uint8, CHUNK - 3)
        np.testing.assert_array_equal(await frames[5:7], noise(CHUNK - 3)[5:7])
        with pytest.raises(IndexError, match=f"frame {CHUNK} of"):
            await frames[CHUNK]
        assert (await frames.kept()).all()
        assert (await growth.results("saturated_fraction"))["saturated_fraction"].shape == (CHUNK - 3,)
        assert len(await growth.to_pandas()) == CHUNK - 3
        assert "growth_rate_ml_s" in await growth.values()
        assert await growth.events() == []
        with pytest.raises(NotFoundError, match="There is no stream nothing"):
            await client.get("nothing")


async def test_a_hosted_list_without_some_fields() -> None:
    """Fields that a server leaves out are None or empty, and nothing fails."""
    async with MemoryService() as service, AsyncClient(service.api_key, service.url) as client:
        assert await client.search("x") == []
        assert await client.samples() == []
