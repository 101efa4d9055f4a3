"""A process that uses OpenTelemetry: a server and a client in it, and all spans as JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from atomstream.streaming import AsyncRHEEDStreamer
from atomstream.testing import running_server
from tests.wire_client import make_frames


async def main(folder: Path) -> list[Any]:
    """Push one chunk whole and one by single frames, in a span of the caller; read the results to their end."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    frames = make_frames(8, 32, 48)
    async with (
        running_server(folder / "data") as server,
        AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=folder / "spool") as streamer,
    ):
        data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
        with trace.get_tracer("growth").start_as_current_span("growth"):
            await streamer.push(data_id, 0, frames[:4])
            for frame in frames[4:]:
                await streamer.push_frame(data_id, frame)
        await streamer.finalize(data_id)
        async for _ in streamer.results(data_id):
            pass
    return [
        {
            "name": span.name,
            "id": span.context.span_id,
            "trace": span.context.trace_id,
            "parent": None if span.parent is None else span.parent.span_id,
            "attributes": dict(span.attributes or {}),
            "events": [event.name for event in span.events],
            "status": span.status.status_code.name,
        }
        for span in exporter.get_finished_spans()
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
