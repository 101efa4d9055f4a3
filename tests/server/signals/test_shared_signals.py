"""Signals of servers that share a store: a chunk is stored once, whichever server receives it, as in a folder."""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from atomstream.errors import ConflictError
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.signals.chunks import StoredChannel
from atomstream.server.signals.shared_registry import SharedSignalRegistry
from atomstream.server.signals.shared_stream import SharedSignalStream
from atomstream.server.signals.stream import SignalsAbout
from atomstream.system.files import LOCAL
from tests.live_server import Serve
from tests.wire_client import WireClient

ID = "6b9c6a3e-2f4a-4c7e-9b1a-0d2f3c4b5a69"
ABOUT = SignalsAbout(
    data_id=ID, processed_data_id=ID, name="Log", made="2026", last_updated="2026", points_per_chunk=2
)


def _channel(*values: float, at: float = 1.0, units: str | None = None) -> StoredChannel:
    times = np.arange(len(values), dtype="<f8") + at
    return StoredChannel(units, times.tobytes(), np.array(values, "<f8").tobytes())


def _open(store: LocalStore, folder: Path) -> SharedSignalStream:
    return SharedSignalStream(folder / f"{ID}.log", LOCAL, store, f"signals/{ID}")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_points_of_two_servers_are_one_stream(store: LocalStore, tmp_path: Path) -> None:
    """Repeats change nothing, other points are refused, by way of either; a server without a cache has all."""
    a, b = _open(store, tmp_path / "a"), _open(store, tmp_path / "b")
    assert a.add(0, {"T": _channel(1, 2), "p": _channel(5, 6)})
    assert not b.add(0, {"T": _channel(1, 2)})
    assert b.add(0, {"T": _channel(1, 2), "shutter": _channel(0, 1)})
    assert b.add(1, {"T": _channel(3, 4, at=3.0)})
    assert not a.add(1, {"T": _channel(3, 4, at=3.0)})
    for stream in (a, b):
        with pytest.raises(ConflictError, match="stored already, with other points"):
            stream.add(0, {"shutter": _channel(1, 1)})
    a.close()
    shutil.rmtree(tmp_path / "a")
    for stream in (_open(store, tmp_path / "a"), b, _open(store, tmp_path / "b")):
        assert sorted(stream.units()) == ["T", "p", "shutter"]
        assert stream.points()["T"].values.tolist() == [1, 2, 3, 4]
        stream.close()


def test_of_many_servers_one_stores_the_points(store: LocalStore, tmp_path: Path) -> None:
    """Four servers receive other points for one index at once: one stores them."""
    streams = [_open(store, tmp_path / str(number)) for number in range(4)]
    results: list[str] = []

    def add(number: int) -> None:
        try:
            results.append(str(streams[number].add(0, {"T": _channel(number)})))
        except ConflictError:
            results.append("refused")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["True", "refused", "refused", "refused"]
    for stream in streams:
        stream.close()


def test_a_damaged_part_does_not_stop_the_stream(store: LocalStore, tmp_path: Path) -> None:
    """A damaged part of a stream of signals counts as empty, and its object is kept."""
    a = _open(store, tmp_path / "a")
    a.add(0, {"T": _channel(1)})
    store.put(f"signals/{ID}/chunks/0/0", b"damaged")
    b = _open(store, tmp_path / "b")
    assert b.units() == {}
    assert b.add(0, {"T": _channel(2)})
    assert store.fetch(f"signals/{ID}/chunks/0/0") == b"damaged"
    a.close()
    b.close()


@pytest.fixture
async def registries(store: LocalStore, tmp_path: Path) -> AsyncIterator[list[SharedSignalRegistry]]:
    made = [SharedSignalRegistry(tmp_path / name, store) for name in ("a", "b")]
    yield made
    for registry in made:
        await registry.close()


async def test_descriptions_are_shared(registries: list[SharedSignalRegistry]) -> None:
    """A stream made by way of one server is found by the other; changes of both are kept."""
    a, b = registries
    await a.create(ABOUT)
    await b.find(ID)
    await b.revise(ID, lambda about: structs.replace(about, name="Log 2"))
    await a.revise(ID, lambda about: structs.replace(about, status="success"))
    await b.refresh()
    for registry in registries:
        assert (registry.about(ID).name, registry.about(ID).status) == ("Log 2", "success")


async def test_requests_of_a_stream_go_to_two_servers(serve: Serve, tmp_path: Path) -> None:
    """Initialize, chunks, finalize and the series, each at another server than the one before."""
    key = "one key of both servers " * 2
    a, b = [await serve(store=str(tmp_path / "store"), api_key=key) for _ in range(2)]
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        made = (await to_a.ask("POST", "/tool-state/stream/initialize", {"points_per_chunk": 2}))[1]
        data_id = made["data_id"]
        for index, client in enumerate((to_b, to_a, to_b)):
            body = {
                "data_id": data_id,
                "chunk_index": index,
                "channel_name": "T",
                "timestamps": [1e9 + 2 * index, 1e9 + 2 * index + 1],
                "values": [index, index],
            }
            status, reply = await client.ask("POST", "/tool-state/stream/chunk", body)
            assert (status, reply["repeated"]) == (200, False), reply
        assert (await to_a.ask("POST", f"/tool-state/stream/{data_id}/finalize"))[0] == 200
        await b.stop()
        shutil.rmtree(b.data_dir)
        await b.start()
        status, series = await to_b.ask("GET", f"/tool-state/{data_id}/timeseries/")
        assert series["properties"]["T"]["values"] == [0, 0, 1, 1, 2, 2]
