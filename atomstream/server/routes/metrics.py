"""``GET /metrics``: the numbers that a monitoring system collects, in the text format of Prometheus."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.context import ServerContext, context_of
from atomstream.server.http.access import access
from atomstream.server.http.connections import GUARD
from atomstream.server.http.gate import require_all_projects
from atomstream.server.http.measurements import Histogram, Measurements, Stored
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Right
from atomstream.server.streams.signals import ChunkStored
from atomstream.version import __version__

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

routes = web.RouteTableDef()

MAX_LISTED: Final = 20
"""With more running streams than this, none is listed by itself: each would be five new time series."""
RUNNING_S: Final = 600.0
"""A stream is listed for this time after its newest chunk."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The state of the server at one moment."""

    measurements: Measurements
    data_dir: Path
    statuses: Mapping[str, int]
    gauges: Mapping[str, tuple[str, float]]
    """Help text and value by name."""
    waiting_reads: Mapping[str, int]
    worker_starts: int
    backlog: Mapping[str, int]
    """Chunks that wait for the analysis, by stream; streams whose results are open."""


def count_chunks(context: ServerContext) -> None:
    """Count each stored chunk from now on."""
    measurements = context.measurements

    async def count(stored: ChunkStored) -> None:
        committed = stored.committed
        if committed.repeated:
            measurements.repeated += 1
            return
        delay_s = time.time() - committed.stamps.end_of_last_frame_ms() / 1000.0
        measurements.note_chunk(stored.ticket.data_id, committed.n_frames, committed.nbytes, delay_s)

    context.signals.chunk_stored.subscribe(count)


@routes.get("/metrics")
@access(Right.READ, browser=False)
async def metrics(request: web.Request) -> web.Response:
    """``GET /metrics``: counters, gauges and histograms; durations in s, sizes in bytes."""
    context = context_of(request)
    require_all_projects(request, "These are the numbers of the whole server")
    numbers = await _numbers(context, len(request.app[GUARD]))
    text = await context.readers.facts.run(request, _render, numbers)
    return web.Response(
        body=text,
        headers={
            "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


async def _numbers(context: ServerContext, connections: int) -> Numbers:
    settings, uploads, workers = context.settings, context.ingest.places, context.results.workers
    backlog = context.results.backlog()
    return Numbers(
        measurements=context.measurements,
        data_dir=settings.data_dir,
        statuses=await _statuses(context),
        gauges={
            **_of_shared_catalogue(context),
            "connections": ("Open connections.", connections),
            "uploads_in_progress": ("Uploads that are being received.", len(uploads)),
            "upload_places": ("Uploads that can be received at once.", settings.max_uploads),
            "open_results": ("Streams whose results are open.", len(backlog)),
            "feed_subscribers": ("Subscribers of live results.", context.results.followers()),
            "analysis_backlog_chunks": (
                "Chunks that are stored and wait for the analysis.",
                sum(backlog.values()),
            ),
            "workers": ("Analysis processes that may run.", len(workers)),
            "workers_running": ("Analysis processes that run.", workers.running()),
        },
        waiting_reads=context.readers.waiting(),
        worker_starts=workers.starts(),
        backlog=backlog,
    )


async def _statuses(context: ServerContext) -> Mapping[str, int]:
    try:
        return await context.streams_table.count_by_status()
    except CatalogueUnavailableError:  # the other metrics are reported without it
        return {}


def _of_shared_catalogue(context: ServerContext) -> dict[str, tuple[str, float]]:
    rows = context.streams_table
    if not rows.is_shared:
        return {}
    return {
        "catalogue_away": (
            "1 while the shared catalogue can't be reached, else 0.",
            float(bool(rows.problem)),
        ),
        "rows_behind": ("Streams whose row in the shared catalogue is older than their files.", rows.pending),
    }


def _render(numbers: Numbers) -> bytes:
    """The text. Runs in a thread: the library is imported at the first call, and the disk may be slow."""
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        from prometheus_client.registry import Collector
    except ModuleNotFoundError:
        raise HttpError(
            501, "This needs the package prometheus-client: pip install 'atomstream[server]'."
        ) from None

    class Server(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _families(numbers)

    registry = CollectorRegistry()
    registry.register(Server())
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _families(numbers: Numbers) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    measured = numbers.measurements
    yield InfoMetricFamily("atomstream_build", "Version of the server.", {"version": __version__})
    for name, (about, value) in numbers.gauges.items():
        yield GaugeMetricFamily(f"atomstream_{name}", about, value)
    yield from _disk(numbers.data_dir)
    statuses = GaugeMetricFamily("atomstream_streams", "Streams by status.", labels=["status"])
    for status, count in sorted(numbers.statuses.items()):
        statuses.add_metric([status], count)
    yield statuses
    reads = GaugeMetricFamily(
        "atomstream_reads_waiting", "Long reading that runs or waits, by class.", labels=["class"]
    )
    for name, count in numbers.waiting_reads.items():
        reads.add_metric([name], count)
    yield reads
    for name, about, number in (
        ("chunks_stored", "Chunks stored, repeated ones not counted.", measured.stored.chunks),
        ("frames_stored", "Frames in these chunks.", measured.stored.frames),
        ("stored_bytes", "Bytes of these chunks, compressed.", measured.stored.nbytes),
        ("chunks_repeated", "Uploads of chunks that had been stored before.", measured.repeated),
        ("worker_starts", "Starts of analysis processes.", numbers.worker_starts),
    ):
        yield CounterMetricFamily(f"atomstream_{name}", about, number)
    yield from _histograms(measured)
    yield from _streams(numbers)


def _disk(data_dir: Path) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    with suppress(OSError):
        usage = shutil.disk_usage(data_dir)
        yield GaugeMetricFamily("atomstream_disk_free_bytes", "Free space of the data folder.", usage.free)
        yield GaugeMetricFamily("atomstream_disk_size_bytes", "Size of its disk.", usage.total)


def _histograms(measured: Measurements) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    for name, about, histogram in (
        (
            "store_delay",
            "Seconds from the exposure of a chunk's last frame until it was stored.",
            measured.store_delay,
        ),
        ("result_delay", "Seconds from then until its results were published.", measured.result_delay),
    ):
        family = HistogramMetricFamily(f"atomstream_{name}_seconds", about)
        _add(family, [], histogram)
        yield family
    requests = HistogramMetricFamily(
        "atomstream_request_duration_seconds",
        "Seconds until a request was answered; WebSockets are not counted.",
        labels=["method", "route", "status"],
    )
    for (method, route, status), histogram in sorted(measured.requests.items()):
        _add(requests, [method, route, str(status)], histogram)
    yield requests


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.buckets(), histogram.total_s)


def _streams(numbers: Numbers) -> Iterator[Metric]:
    """Each running stream by itself, where there are few."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    now = numbers.measurements.monotonic()
    running: dict[str, Stored] = {
        data_id: stored
        for data_id, stored in tuple(numbers.measurements.streams.items())
        if now - stored.at_s <= RUNNING_S
    }
    yield GaugeMetricFamily(
        "atomstream_streams_running", f"Streams with a chunk in the last {RUNNING_S:g} s.", len(running)
    )
    if len(running) > MAX_LISTED:
        return
    label = ["data_id"]
    chunks = CounterMetricFamily("atomstream_stream_chunks_stored", "Chunks of a stream.", labels=label)
    frames = CounterMetricFamily("atomstream_stream_frames_stored", "Frames of a stream.", labels=label)
    nbytes = CounterMetricFamily("atomstream_stream_stored_bytes", "Bytes of a stream.", labels=label)
    silence = GaugeMetricFamily(
        "atomstream_stream_silence_seconds", "Seconds since a stream's newest chunk.", labels=label
    )
    backlog = GaugeMetricFamily(
        "atomstream_stream_backlog_chunks", "Chunks of a stream that wait for the analysis.", labels=label
    )
    for data_id, stored in running.items():
        chunks.add_metric([data_id], stored.chunks)
        frames.add_metric([data_id], stored.frames)
        nbytes.add_metric([data_id], stored.nbytes)
        silence.add_metric([data_id], now - stored.at_s)
        backlog.add_metric([data_id], numbers.backlog.get(data_id, 0))
    yield from (chunks, frames, nbytes, silence, backlog)
