"""Says long before it happens that memory or disk will be full: what the uplink carries, how the backlog grows."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from atomstream.config import OnFull
from atomstream.errors import SpoolError
from atomstream.pipeline.meter import Rates
from atomstream.pipeline.pipeline import Pipeline
from atomstream.spool import Spool

log = logging.getLogger("atomstream.forecast")

LOOK_S: Final = 2.0
REPEAT_S: Final = 30.0
HORIZON_S: Final = 86_400.0
_THEN: Final[dict[OnFull, str]] = {
    "wait": "push waits for room (on_full='wait')",
    "drop_newest": "new chunks are dropped, each one counted (on_full='drop_newest')",
    "drop_oldest": "the oldest chunks are dropped, each one counted (on_full='drop_oldest')",
    "raise": "push raises (on_full='raise')",
}


async def watch_forecast(pipeline: Pipeline, spool: Spool | None) -> None:
    """Look each two seconds, for as long as the streamer lives; warn at most each thirty."""
    while True:
        await asyncio.sleep(LOOK_S)
        if not pipeline.uplink_lags():
            continue
        room = await _room(pipeline, spool)
        sentence = forecast(pipeline.meter.rates(), room, pipeline.settings.on_full)
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


def forecast(rates: Rates, room: Room, on_full: OnFull = "wait") -> str:
    """What happens and what can be done, where memory or disk will be full within the day; else empty."""
    place = "memory" if room.disk is None else "the disk"
    left_s = rates.full_in_s(room.memory if room.disk is None else room.disk)
    if left_s is None or left_s > HORIZON_S:
        return ""
    growth = (rates.bytes_in_s - rates.bytes_out_s) / 1e6
    return (
        f"The uplink carries {rates.frames_out_s:.0f} of {rates.frames_in_s:.0f} frames a second; the backlog "
        f"grows {growth:.1f} MB/s; {place} is full in {_span(left_s)}. Nothing is lost until then, and what waits "
        f"goes out when frames pause; after it {_THEN[on_full]}. {_advice(rates)}"
    )


def _advice(rates: Rates) -> str:
    share = rates.frames_out_s / rates.frames_in_s
    if share < 0.01:
        return "See whether the server and the way to it are well."
    return (
        f"To keep up now: at most {rates.frames_out_s:.0f} frames a second, or a region or binning that leaves "
        f"{100 * share:.0f} % of the pixels; shards are made as small as zstd can by itself."
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
