"""The few numbers of a growth that lists show (rate, layers, thickness), read from its checkpoint."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from atomstream.server.live.messages import CurrentResults, MeasurementRecord, SegmentRecord
from atomstream.server.live.result_log import current_form
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain

LEAST_CYCLES: Final = 5.0
"""Oscillations that a segment needs to count as the best one of its growth."""
KEPT: Final = 4096
"""Summaries in memory."""


class GrowthSummary(msgspec.Struct, frozen=True):
    """``rate`` (with its unit) is that of the present segment, else of the best one; None: not determined.

    ``relative_error`` is that of the best segment: the one of at least ``LEAST_CYCLES`` oscillations whose rate is
    known best.
    """

    rate: MeasurementRecord | None = None
    relative_error: float | None = None
    layers: MeasurementRecord | None = None
    thickness_nm: MeasurementRecord | None = None


def summary_of(newest: CurrentResults) -> GrowthSummary:
    """The summary of a growth's newest results."""
    best = min(filter(_counts, newest.segments), key=_relative_error, default=None)
    rate = _determined(newest, "growth_rate_ml_s") or (
        None if best is None else _in_layers(best.rate, newest)
    )
    return GrowthSummary(
        rate,
        None if best is None else _relative_error(best),
        _determined(newest, "layers_total"),
        _determined(newest, "thickness_nm"),
    )


def _in_layers(rate: MeasurementRecord, newest: CurrentResults) -> MeasurementRecord:
    """A segment's rate in the unit of the growth rate, so that lists compare equal units; unchanged where oscillations
    are not layers.
    """
    now = newest.values.get("growth_rate_ml_s")
    if now is None or _determined(newest, "layers_total") is None:
        return rate
    return msgspec.structs.replace(rate, unit=now.unit)


def _determined(newest: CurrentResults, name: str) -> MeasurementRecord | None:
    found = newest.values.get(name)
    return None if found is None or found.value is None else found


def _counts(segment: SegmentRecord) -> bool:
    return bool(segment.rate.value and segment.rate.sigma) and (segment.cycles or 0.0) >= LEAST_CYCLES


def _relative_error(segment: SegmentRecord) -> float:
    return abs((segment.rate.sigma or 0.0) / (segment.rate.value or 1.0))


class SummaryReader:
    """Summaries of ended streams, by their folder; thread-safe. One is read again when its checkpoint changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, tuple[tuple[int, int], GrowthSummary]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, folder: Path) -> GrowthSummary | None:
        """The summary of the stream in ``folder``; None if it has no results, or none that can be read. Blocks."""
        path = folder / "analysis" / "checkpoint"
        try:
            found = path.stat()
            key = (found.st_mtime_ns, found.st_size)
            with self._lock:
                kept = self._kept.get(path)
            if kept is not None and kept[0] == key:
                return kept[1]
            summary = _summary_in(read_plain(path, DOCUMENT_BYTES))
        except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
            return None
        with self._lock:
            self._kept[path] = (key, summary)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return summary


def _summary_in(raw: bytes) -> GrowthSummary:
    body, check = raw[:-4], raw[-4:]
    if google_crc32c.value(body).to_bytes(4, "little") != check:
        raise ValueError("the checkpoint is damaged")
    noted = msgspec.msgpack.decode(body)["noted"]
    return summary_of(msgspec.convert(current_form(current_form(noted)["newest"]), CurrentResults))
