"""Sends a film through a real local server with its stamps, and reads back what was reported live."""

from __future__ import annotations

import time
import traceback
from typing import Any

from atomstream import RHEEDStreamer
from atomstream.testing import running_server
from benchmarks.truth.simulator import Film
from benchmarks.truth.watch import Record, checks, events, look, new_record, thinned


def watch_server(film: Film) -> Record:
    """Stream a film to a server in chunks of half a second and return what its feed reported, with the true values.

    The client sends faster than real time; the server analyses each chunk as if it had just arrived.
    """
    began = time.process_time()
    record = new_record(film)
    columns: list[tuple[Any, Any]] = []
    size = max(1, round(film.fps * film.look_s))
    origin_ms = 1e3 * (time.time() - float(film.times[-1]))
    marks = sorted(film.marks)
    try:
        with running_server() as server, RHEEDStreamer(server.api_key, server.url) as streamer:
            data_id = streamer.initialize(film.fps, film.rpm, size)
            for chunk, start in enumerate(range(0, len(film), size)):
                while marks and marks[0][0] <= film.times[start]:
                    at, label, kind = marks.pop(0)
                    streamer.mark(data_id, label, kind, origin_ms + 1e3 * at)
                times = origin_ms + 1e3 * film.times[start : start + size]
                streamer.push(data_id, chunk, film.frames(start, start + size), frame_times_ms=list(times))
            streamer.finalize(data_id)
            for batch in streamer.results(data_id):
                if batch.count:
                    columns.append((batch.time_s, batch["specular_intensity"]))
                record["events"] += events(batch.events)
                last = min(len(film), batch.start + batch.count) - 1
                if batch.segments:
                    record["segments"] = [
                        {"start": s["start_s"], "end": s["end_s"], "rate": s["rate"]["value"],
                         "sigma": s["rate"]["sigma"], "counted": s["counted"]["value"]}
                        for s in batch.segments
                    ]  # fmt: skip
                one = look(film, float(film.times[max(0, last)]), dict(batch.values), len(batch.segments))
                if batch.final:
                    record["final"] = one
                elif batch.count:
                    record["looks"].append(one)
    except Exception:  # any error is a result of this benchmark
        record["crash"] = traceback.format_exc(limit=-4)
    frames = sum(len(t) for t, _ in columns)
    if not record["crash"] and frames < 0.98 * len(film):
        record["crash"] = f"only {frames} of {len(film)} frames were analysed"
    record["analysis_s"] = time.process_time() - began
    record["checks"] = checks(film, columns)
    record["trace"] = thinned(columns)
    return record
