"""Says long before it happens that memory or disk will be full: what the uplink carries, how the backlog grows."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from atomstream.errors import SpoolError
from atomstream.pipeline.meter import Rates
from atomstream.pipeline.pipeline import Pipeline
from atomstream.spool import Spool

log = logging.getLogger("atomstream.forecast")

LOOK_S: Final = 2.0
REPEAT_S: Final = 30.0
NOTABLE_BACKLOG: Final = 4
"""Fewer chunks are simply on their way."""
HORIZON_S: Final = 86_400.0


async def watch_forecast(pipeline: Pipeline, spool: Spool | None) -> None:
    """Look each two seconds, for as long as the streamer lives; warn at most each thirty."""
    while True:
        await asyncio.sleep(LOOK_S)
        rates = pipeline.meter.rates()
        if not rates.backlog_grows or pipeline.uploader.backlog < NOTABLE_BACKLOG:
            continue
        sentence = forecast(rates, await _room(pipeline, spool))
        if sentence:
            log.warning("%s", sentence)
            await asyncio.sleep(REPEAT_S)


async def _room(pipeline: Pipeline, spool: Spool | None) -> Room:
    memory = max(0, pipeline.gate.limit - pipeline.gate.used)
    if spool is None or pipeline.keeper.unkept:
        return Room(memory, None)
    try:
        return Room(memory, await pipeline.depot.run(spool.room_bytes))
    except SpoolError:
        return Room(memory, None)


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that still fit in memory, and on disk (None: the disk takes nothing)."""

    memory: int
    disk: int | None


def forecast(rates: Rates, room: Room) -> str:
    """One sentence where memory or disk will be full within the day; else empty."""
    place = "memory" if room.disk is None else "the disk"
    left_s = rates.full_in_s(room.memory if room.disk is None else room.disk)
    if left_s is None or left_s > HORIZON_S:
        return ""
    growth = (rates.bytes_in_s - rates.bytes_out_s) / 1e6
    return (
        f"The uplink carries {rates.frames_out_s:.0f} of {rates.frames_in_s:.0f} frames a second; the backlog "
        f"grows {growth:.1f} MB/s; {place} is full in {_span(left_s)}."
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
