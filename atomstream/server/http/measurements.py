"""Counts and durations since the start of the server, for ``GET /metrics``.

Each value costs one addition when something happens, a duration one more search in a list of 14 bounds (about a
microsecond). Nothing else is computed until a request for the metrics.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.server.http.path_prefix import route_path

DURATION_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
)
"""Upper bounds of the histograms in s; a last one is infinite."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

OTHER: Final = "other"
"""Label of methods and paths that the server does not have: arbitrary requests must not create new labels."""

MAX_STREAMS: Final = 256
"""Streams that are counted one by one: those with the newest chunks."""


class Histogram:
    """How many durations lie below each of ``DURATION_BOUNDS``, and their sum (s)."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS) + 1)
        self.total_s = 0.0

    def note(self, duration_s: float) -> None:
        """Count one duration; a negative one (by the clocks of two computers) counts as 0."""
        duration_s = max(duration_s, 0.0)
        self.counts[bisect_left(DURATION_BOUNDS, duration_s)] += 1
        self.total_s += duration_s

    def buckets(self) -> list[tuple[str, int]]:
        """Pairs of an upper bound and the number of durations up to it, in the form that Prometheus defines."""
        found, below = [], 0
        for bound, count in zip((*map(str, DURATION_BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found


@dataclass(slots=True)
class Stored:
    """What was stored: new chunks, their frames and bytes, and when the newest came (monotonic s)."""

    chunks: int = 0
    frames: int = 0
    nbytes: int = 0
    at_s: float = 0.0

    def add(self, frames: int, nbytes: int, at_s: float) -> None:
        """Count one chunk."""
        self.chunks += 1
        self.frames += frames
        self.nbytes += nbytes
        self.at_s = at_s


class Measurements:
    """All counts of one server. Used in its loop.

    ``store_delay`` is the time from the exposure of a chunk's last frame until the chunk was stored, by the clocks of
    both computers; ``result_delay`` that from then until its results were published.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        self.stored = Stored()
        self.repeated = 0
        self.streams: OrderedDict[str, Stored] = OrderedDict()
        self.store_delay = Histogram()
        self.result_delay = Histogram()

    def note_chunk(self, data_id: str, frames: int, nbytes: int, delay_s: float) -> None:
        """A new chunk was stored."""
        now = self.monotonic()
        self.stored.add(frames, nbytes, now)
        self.store_delay.note(delay_s)
        stream = self.streams.get(data_id)
        if stream is None:
            stream = self.streams[data_id] = Stored()
            if len(self.streams) > MAX_STREAMS:
                self.streams.popitem(last=False)
        else:
            self.streams.move_to_end(data_id)
        stream.add(frames, nbytes, now)

    def note_request(self, request: web.Request, status: int, duration_s: float) -> None:
        """A request was answered."""
        key = (
            request.method if request.method in METHODS else OTHER,
            route_path(request) or OTHER,
            status,
        )
        histogram = self.requests.get(key)
        if histogram is None:
            histogram = self.requests[key] = Histogram()
        histogram.note(duration_s)

    def middleware(self) -> Any:
        """A middleware that measures each request, except WebSockets, which last as long as their page."""

        @web.middleware
        async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
            began = self.monotonic()
            reply = await handler(request)
            if not isinstance(reply, web.WebSocketResponse):
                self.note_request(request, reply.status, self.monotonic() - began)
            return reply

        return measured
