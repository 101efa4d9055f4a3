"""What ``results`` yields: per-frame columns and the values as they stand, each with its uncertainty or a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.results import Event, Measurement, event_from, measurement_from

Column = npt.NDArray[np.floating[Any]]

TIME: Final = "time_seconds"

_TOLD: Final = ("growth_rate_ml_s", "oscillations_counted", "lattice_spacing", "spottiness")


NOT_TOLD: Final = Measurement(None, why="this server does not tell it")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ResultBatch:
    """Results of the frames ``start`` .. ``start + count - 1``; ``count`` may be 0: then only values are new.

    ``columns`` maps names to (count,) arrays, NaN where undetermined; ``time_seconds`` among them counts from the
    stream's first frame. ``values`` are the scalars as they stand at the last frame, ``segments`` and ``views``
    (of rotating growths) plain dicts. ``lost`` counts the records that were passed over before this one because
    they were not read in time. ``final`` is set on the last batch of an analysis. ``seq`` numbers batches; 0 where
    the server has no feed and was polled.
    """

    data_id: str
    seq: int
    start: int
    count: int
    columns: Mapping[str, Column]
    values: Mapping[str, Measurement]
    events: tuple[Event, ...] = ()
    segments: tuple[Mapping[str, Any], ...] = ()
    views: tuple[Mapping[str, Any], ...] = ()
    profile: Column = field(default_factory=lambda: np.empty(0, np.float32))
    stored_unix_ms: float | None = None
    made_unix_ms: float | None = None
    final: bool = False
    lost: int = 0
    angle_deg: float | None = None

    @property
    def time_s(self) -> Column:
        """Times of the frames in s from the stream's start, (count,)."""
        return self[TIME]

    def __getitem__(self, name: str) -> Column:
        """A per-frame column by name, NaN where nothing was determined."""
        known = self.columns.get(name)
        return np.full(self.count, np.nan) if known is None else known

    def value(self, name: str) -> Measurement:
        """A scalar by name, "undetermined" with a reason where there is none."""
        return self.values.get(name, NOT_TOLD)

    @property
    def growth_rate_ml_s(self) -> float | None:
        """Growth rate in layers a second, None where undetermined (``value("growth_rate_ml_s").why`` says why)."""
        return self.value("growth_rate_ml_s").value

    @property
    def growth_rate_sigma(self) -> float | None:
        """Its standard uncertainty in layers a second."""
        return self.value("growth_rate_ml_s").sigma

    @property
    def oscillations_counted(self) -> float | None:
        """Oscillations since growth, or its present segment, began."""
        return self.value("oscillations_counted").value

    @property
    def layers_grown(self) -> float | None:
        """Layers since then, where each oscillation is one layer."""
        return self.value("layers_grown").value

    @property
    def lattice_spacing(self) -> float | None:
        """Spacing of the streaks in px."""
        return self.value("lattice_spacing").value

    def to_pandas(self) -> Any:
        """The per-frame columns as a pandas DataFrame indexed by time (s)."""
        import pandas

        columns = {name: values for name, values in self.columns.items() if name != TIME}
        return pandas.DataFrame(columns, index=pandas.Index(self.time_s, name=TIME))

    def __repr__(self) -> str:
        if self.count:
            span = f"frames {self.start}-{self.start + self.count - 1}, to {float(self.time_s[-1]):.2f} s"
        else:
            span = f"after frame {self.start - 1}"
        told = [f"{name}={self.values[name]}" for name in _TOLD if name in self.values]
        told += [f"{event.kind} at {event.time_s:.2f} s" for event in self.events if event.time_s is not None]
        told += ["final"] * self.final + [f"{self.lost} records lost before"] * bool(self.lost)
        return f"<ResultBatch {self.seq}: {span}; {'; '.join(told)}>"


def from_message(data_id: str, message: Mapping[str, Any], lost: int = 0) -> ResultBatch:
    """The batch of a feed's message.

    Raises:
        KeyError, ValueError, TypeError: it is none.
    """
    return ResultBatch(
        data_id=data_id,
        seq=int(message["seq"]),
        start=int(message["start"]),
        count=int(message["count"]),
        columns={name: _column(name, raw) for name, raw in message["columns"].items()},
        values={name: measurement_from(value) for name, value in message["values"].items()},
        events=tuple(event_from(event) for event in message["events"]),
        segments=tuple(message["segments"]),
        views=tuple(message["views"]),
        profile=np.frombuffer(message.get("profile", b""), dtype="<f4"),
        stored_unix_ms=message.get("stored_unix_ms"),
        made_unix_ms=message.get("made_unix_ms"),
        final=bool(message.get("final")),
        lost=lost,
    )


def _column(name: str, raw: bytes) -> Column:
    return np.frombuffer(raw, dtype="<f8" if name == TIME else "<f4")


def without_first(batch: ResultBatch, count: int) -> ResultBatch:
    """The batch without its first ``count`` frames."""
    from dataclasses import replace

    columns = {name: values[count:] for name, values in batch.columns.items()}
    return replace(batch, start=batch.start + count, count=batch.count - count, columns=columns)
