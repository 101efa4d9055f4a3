"""Says long before it happens that memory will be full: what the uplink carries, how fast the backlog grows."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from atomstream.pipeline.meter import Rates
from atomstream.pipeline.pipeline import Pipeline

log = logging.getLogger("atomstream.forecast")

LOOK_S: Final = 2.0
REPEAT_S: Final = 30.0
HORIZON_S: Final = 600.0
HALF_FULL: Final = 0.5


class Forecast:
    """A background look each two seconds; warns at most each thirty."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="atomstream-forecast")

    async def close(self) -> None:
        """Stop looking."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            sentence = forecast(
                self._pipeline.meter.rates(), self._pipeline.gate.used, self._pipeline.gate.limit
            )
            if sentence:
                log.warning("%s", sentence)
                await asyncio.sleep(REPEAT_S)


def forecast(rates: Rates, used: int, limit: int) -> str:
    """One sentence where memory will be full within ten minutes, or is half full and filling; else empty."""
    left_s = rates.full_in_s(max(0, limit - used))
    if left_s is None or (left_s > HORIZON_S and used < HALF_FULL * limit):
        return ""
    growth = (rates.bytes_in_s - rates.bytes_out_s) / 1e6
    return (
        f"The uplink carries {rates.frames_out_s:.0f} of {rates.frames_in_s:.0f} frames a second; the backlog "
        f"grows {growth:.1f} MB/s and {used / 1e6:.0f} of {limit / 1e6:.0f} MB of memory are held: full in "
        f"{_span(left_s)}."
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
