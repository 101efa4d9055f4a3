"""The analysis of one stream inside a worker: frames and words in, plain results out."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from atomstream.analysis import Analyzer, Batch, Box, Calibration
from atomstream.analysis.arrays import F64
from atomstream.records import Frames
from atomstream.server.live.plain import Plain, from_batch, from_region, to_region

SUB_BATCH_S = 0.5
"""Results come at least so often, in seconds of frames, however long the chunks are: fits are renewed as often."""
LATE_COLUMNS = frozenset(
    {
        "time_seconds",
        *("specular_intensity", "specular_background", "specular_x", "specular_y", "saturated_fraction"),
        *(f"{order}_order_intensity{side}" for order in ("first", "half") for side in ("", "_l", "_r")),
        "azimuth_angle",
    }
)
"""What can be measured on frames that come too late for the fits."""


class Session:
    """One stream's analyser. ``about`` has fps, rpm, chunk_size, calibration, and ``state`` where there is one."""

    def __init__(self, about: Plain) -> None:
        self._about = about
        self._words: list[Plain] = []
        self._step = max(1, round(SUB_BATCH_S * about["fps"]))
        state = about.get("state")
        self._engine = Analyzer.from_state(msgspec.msgpack.decode(state)) if state else self._fresh()

    def _fresh(self) -> Analyzer:
        about = self._about
        return Analyzer(
            about["fps"], about["rpm"], about["chunk_size"], Calibration(**about.get("calibration") or {})
        )

    def tell(self, words: list[Plain]) -> None:
        """Take what the user said: events wait for their time, the rest holds from now on."""
        for word in words:
            match word["what"]:
                case "regions":
                    self._engine.set_regions([to_region(plain) for plain in word["regions"]])
                case "calibration":
                    self._about["calibration"] = word["calibration"]
                    self._engine.set_calibration(Calibration(**word["calibration"]))
                case "event":
                    self._words.append(word)
        self._words.sort(key=lambda word: float(word["time_s"]))

    def feed(self, start: int, frames: Frames, times: F64) -> Iterator[Plain]:
        """Analyse frames (N, H, W) from index ``start`` on, at ``times`` (N,) in s; yields batches as they are done."""
        for first in range(0, len(frames), self._step):
            part = slice(first, first + self._step)
            self._say_until(float(times[part][-1]))
            batch = self._engine.feed(start + first, frames[part], times[part])
            yield self._told(batch)

    def gap(self, until: int) -> None:
        """Pass frames up to index ``until``; the event of it comes with the next batch."""
        self._engine.gap(until - self._engine.frames_fed)

    def late(self, start: int, frames: Frames, times: F64) -> Iterator[Plain]:
        """Measure frames whose turn is over: what needs no neighbours in time, with the regions as they are now."""
        helper = self._fresh()
        helper.set_regions(
            [box for box in self._engine.regions if isinstance(box, Box) and box.name != "streaks"]
        )
        for batch in (helper.feed(start, frames, times), helper.finish()):
            plain = from_batch(batch)
            columns = plain["columns"].items()
            kept = {name: raw for name, raw in columns if name in LATE_COLUMNS or name.startswith("region_")}
            yield {"start": plain["start"], "count": plain["count"], "columns": kept}

    def finish(self) -> Plain:
        """Say the last words, close what is open, fit once more."""
        self._say_until(float("inf"))
        return self._told(self._engine.finish())

    def _told(self, batch: Batch) -> Plain:
        return {**from_batch(batch), "fed": self._engine.frames_fed, "found": self._found()}

    def _say_until(self, time_s: float) -> None:
        while self._words and self._words[0]["time_s"] <= time_s:
            word = self._words.pop(0)
            if word["kind"] == "rotation":
                self._engine.set_rotation(word["value"])
            else:
                self._engine.mark(word["label"], word["kind"], word["time_s"])

    def _found(self) -> list[Plain]:
        """The analysis' own regions, where they are now."""
        return [
            from_region(region) for region in self._engine.regions if region.name in ("specular", "streaks")
        ]

    def state(self) -> Plain:
        """Everything the analyser knows (``state``), and the ``words`` that still wait for their time."""
        return {"state": msgspec.msgpack.encode(self._engine.state()), "words": list(self._words)}
