"""Runs the analysis on a film, as it would run live, and stores its values every half second; one such reading is
called a "look"."""

from __future__ import annotations

import itertools
import math
import time
import traceback
from collections.abc import Iterable
from typing import Any

import numpy as np

from atomstream.analysis import Analyzer
from atomstream.results import Batch, Event, Measurement
from benchmarks.truth.baselines import METHODS
from benchmarks.truth.simulator import Film

CHECKS = (0.6, 1.0)
"""Shares of the film at which our number is compared with the simple methods."""

Record = dict[str, Any]
"""What is stored of one film: plain values, one line of JSON."""


def new_record(film: Film) -> Record:
    """Return the record of a film before it has run."""
    jumps = film.growth.jumps()
    return {
        "kind": film.kind, "seed": film.seed, "frames": len(film), "crash": "", "looks": [], "checks": [],
        "segments": [], "events": [], "trace": [], "marked": bool(film.marks), "jumps": jumps, "slack": film.slack,
        "grown": float(film.growth.layers(jumps[-1][0])) if jumps else 0.0,
    }  # fmt: skip


def watch(film: Film) -> Record:
    """Feed a film in pieces of half a second and return what was reported, with the true values."""
    began = time.process_time()
    record = new_record(film)
    columns: list[tuple[Any, Any]] = []
    try:
        analyzer = Analyzer(film.fps, film.rpm)
        marks = sorted(film.marks)
        for start, stop in slices(film):
            while marks and marks[0][0] <= film.times[start]:
                at, label, kind = marks.pop(0)
                analyzer.mark(label, kind, at)
            batch = analyzer.feed(start, film.frames(start, stop), film.times[start:stop])
            record["looks"].append(_seen(film, float(film.times[stop - 1]), batch, record, columns))
        record["final"] = _seen(film, float(film.times[-1]), analyzer.finish(), record, columns)
    except Exception:  # any error is a result of this benchmark
        record["crash"] = traceback.format_exc(limit=-4)
    record["analysis_s"] = time.process_time() - began
    record["checks"] = checks(film, columns)
    record["trace"] = thinned(columns)
    return record


def _seen(film: Film, t: float, batch: Batch, record: Record, columns: list[tuple[Any, Any]]) -> Record:
    """Keep the trace and the segments of a batch, and return its look."""
    if batch.count and "specular_intensity" in batch.frames:
        columns.append((batch.time_s, batch.frames["specular_intensity"]))
    record["segments"] = segments(batch) or record["segments"]
    record["events"] += events(batch.events)
    return look(film, t, batch.values, len(batch.segments))


def slices(film: Film) -> list[tuple[int, int]]:
    """Return the frame ranges between the looks."""
    ends = np.arange(film.look_s, film.times[-1] + film.look_s, film.look_s)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(film.times, ends), [len(film)]]))
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def look(film: Film, t: float, values: dict[str, Measurement], segment_count: int) -> Record:
    """Return what is reported and what is true at ``t`` (s)."""
    rate, layers = values.get("growth_rate_ml_s"), values.get("layers_grown")
    counted, truth = values.get("oscillations_counted"), film.truth(t)
    return {
        "t": round(t, 4), "segments": segment_count,
        "rate": number(rate), "sigma": rate.sigma if rate else None,
        "why": rate.why if rate else "", "note": rate.note if rate else "",
        "layers": number(layers), "layers_sigma": layers.sigma if layers else None,
        "counted": number(counted), "counted_sigma": counted.sigma if counted else None,
        "true": None if math.isnan(truth.rate) else truth.rate, "readings": truth.readings,
        "true_layers": truth.layers, "since": truth.since_s,
        "ceiling": truth.ceiling if math.isfinite(truth.ceiling) else None,
    }  # fmt: skip


def number(value: Measurement | None) -> float | None:
    """Return the number of a result, None if it has none."""
    return value.value if value else None


def events(found: Iterable[Event]) -> list[tuple[float | None, str, str]]:
    """Return the events that the analysis found itself as (time in s, kind, label)."""
    return [(e.time_s, e.kind, e.label) for e in found if e.by == "analysis"]


def segments(batch: Batch) -> list[Record]:
    """Return the segments of a batch as plain values."""
    return [
        {"start": s.start_s, "end": s.end_s, "rate": s.rate.value, "sigma": s.rate.sigma, "counted": s.counted.value}
        for s in batch.segments
    ]  # fmt: skip


def thinned(columns: list[tuple[Any, Any]], points: int = 400) -> list[tuple[float, float]]:
    """Return about 400 points of the trace for a picture."""
    if not columns:
        return []
    t, y = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    step = max(1, len(t) // points)
    good = np.isfinite(t[::step]) & np.isfinite(y[::step])
    return [
        (round(float(a), 3), round(float(b), 1))
        for a, b in zip(t[::step][good], y[::step][good], strict=True)
    ]


def checks(film: Film, columns: list[tuple[Any, Any]]) -> list[Record]:
    """Return the answers of the simple methods at two looks before each check: they must agree to count."""
    if not columns:
        return []
    t, y = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    found = []
    for share in CHECKS:
        at = float(film.times[0] + share * (film.times[-1] - film.times[0]))
        truth = film.truth(at)
        if not truth.rate > 0:
            continue
        answers = {
            name: [method(t[t <= end], y[t <= end]) for end in (at - film.look_s, at)]
            for name, method in METHODS.items()
        }
        found.append({"t": at, "true": truth.rate, **answers})
    return found
