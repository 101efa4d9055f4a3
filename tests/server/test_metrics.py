"""``GET /metrics``: what it counts, that it stays bounded, and who may read it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from atomstream.server.http import measurements
from atomstream.server.http.measurements import DURATION_BOUNDS, Histogram, Measurements
from atomstream.server.routes import metrics
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames, shard_bytes

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(client: WireClient, server: LiveServer) -> Samples:
    """All samples by name and labels, parsed as Prometheus does."""
    async with client.session.get(f"{server.url}/metrics") as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await reply.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return samples[f"atomstream_{name}", tuple(sorted(labels.items()))]


async def test_chunks_frames_and_bytes_are_counted(serve: Serve) -> None:
    """Each stored chunk counts once, by itself and by its stream; an upload that repeats it is counted apart."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        for index in (0, 1, 1):
            assert (await client.send(data_id, index, make_frames(4)))[0] == 200
        samples = await read(client, server)
    assert value(samples, "chunks_stored_total") == 2
    assert value(samples, "chunks_repeated_total") == 1
    assert value(samples, "frames_stored_total") == 8
    assert value(samples, "stored_bytes_total") == 2 * len(shard_bytes(make_frames(4)))
    assert value(samples, "stream_frames_stored_total", data_id=data_id) == 8
    assert value(samples, "stream_silence_seconds", data_id=data_id) >= 0
    assert value(samples, "stream_backlog_chunks", data_id=data_id) >= 0
    assert value(samples, "streams", status="stream_active") == 1
    assert value(samples, "store_delay_seconds_count") == 2


async def test_the_state_of_the_server(serve: Serve) -> None:
    """Disk, connections, places, workers and the process itself are shown."""
    server = await serve(max_uploads=7, analysis_workers=2)
    async with WireClient(server) as client:
        samples = await read(client, server)
    assert 0 < value(samples, "disk_free_bytes") <= value(samples, "disk_size_bytes")
    assert value(samples, "connections") == 1
    assert value(samples, "upload_places") == 7
    assert value(samples, "uploads_in_progress") == 0
    assert value(samples, "workers") == 2
    assert 0 <= value(samples, "workers_running") <= value(samples, "worker_starts_total") <= 2
    assert value(samples, "analysis_backlog_chunks") == 0
    assert {name for name, _ in samples} >= {"process_resident_memory_bytes", "process_open_fds"}


async def test_requests_are_measured_by_route(serve: Serve) -> None:
    """The label is the route, not the path, so that ids make no labels; WebSockets are left out."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.ask("GET", f"/rheed/stream/{data_id}/chunks")
        samples = await read(client, server)
    count = value(
        samples,
        "request_duration_seconds_count",
        method="GET",
        route="/rheed/stream/{data_id}/chunks",
        status="200",
    )
    assert count == 1
    assert data_id not in str(list(samples)).replace(f"('data_id', '{data_id}')", "")


async def test_unknown_paths_make_no_labels(serve: Serve) -> None:
    """Unknown paths and methods share one label, however many of them there are."""
    server = await serve()
    async with WireClient(server) as client:
        for number in range(20):
            method = ("PROPFIND", "PURGE", "MKCOL", "LOCK")[number % 4]
            async with client.session.request(method, f"{server.url}/none/{number}") as reply:
                assert reply.status == 404
        samples = await read(client, server)
    routes = {
        dict(labels)["route"]
        for name, labels in samples
        if name == "atomstream_request_duration_seconds_count"
    }
    assert routes == {"other"}
    assert value(samples, "request_duration_seconds_count", method="other", route="other", status="404") == 20


async def test_a_key_is_needed(serve: Serve) -> None:
    """Without a key there are no numbers."""
    server = await serve()
    async with WireClient(server, headers={}) as client, client.session.get(f"{server.url}/metrics") as reply:
        assert reply.status == 401


async def test_many_streams_are_not_listed_one_by_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ``MAX_LISTED`` running streams only their number is shown."""
    monkeypatch.setattr(metrics, "MAX_LISTED", 1)
    server = await serve()
    async with WireClient(server) as client:
        for _ in range(2):
            await client.send(await client.create(), 0, make_frames(1))
        samples = await read(client, server)
    assert value(samples, "streams_running") == 2
    assert not [name for name, _ in samples if name.startswith("atomstream_stream_")]


async def test_without_the_library(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply names the package that is missing."""
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    server = await serve()
    async with WireClient(server) as client:
        status, body = await client.ask("GET", "/metrics")
    assert status == 501
    assert "prometheus-client" in body["detail"]


def test_a_histogram_counts_up_to_each_bound() -> None:
    """A duration equal to a bound belongs to it, a longer one than all to the last; negative ones count as 0."""
    histogram = Histogram()
    for duration_s in (-1.0, 0.001, 0.002, 60.0, 61.0):
        histogram.note(duration_s)
    found = dict(histogram.buckets())
    assert [found[bound] for bound in ("0.001", "0.0025", "10.0", "60.0", "+Inf")] == [2, 3, 3, 4, 5]
    assert list(found)[:-1] == list(map(str, DURATION_BOUNDS))
    assert histogram.total_s == pytest.approx(121.003)


def test_streams_with_the_newest_chunks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for single streams is bounded; the sum is not affected."""
    monkeypatch.setattr(measurements, "MAX_STREAMS", 2)
    measured: Any = Measurements()
    for data_id in ("a", "b", "a", "c"):
        measured.note_chunk(data_id, 10, 100, 0.5)
    assert list(measured.streams) == ["a", "c"]
    assert measured.streams["a"].frames == 20
    assert measured.stored.frames == 40
