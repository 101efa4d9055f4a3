"""Batches of live results: values per frame, and scalars with their uncertainty or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from atomstream import html
from atomstream.counted import counted
from atomstream.optional import load
from atomstream.plots import plot_columns
from atomstream.results import (
    Event,
    Measurement,
    event_from,
    finite_or_none,
    measurement_from,
    received_map,
    received_maps,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Column = npt.NDArray[np.floating[Any]]

TIME: Final = "time_seconds"

_REPR_VALUES: Final = ("growth_rate_ml_s", "oscillations_counted", "lattice_spacing", "spottiness")

NOT_REPORTED: Final = Measurement(None, why="this server does not report it")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ResultBatch:
    """Results of the frames ``start`` to ``start + count - 1``. ``count`` may be 0: then only the scalars are new.

    Attributes:
        data_id: the stream.
        seq: number of the batch; pass it as ``after`` to ``results`` to continue after this batch. 0 if the server has
            no feed.
        start: index of the first frame in the stream.
        count: number of frames.
        columns: values per frame by name, arrays of shape (count,), NaN if undetermined. ``time_seconds`` is the time
            since the first frame of the stream in s. ``batch["name"]`` reads one.
        values: scalars by name, as of the last frame (see :class:`Measurement`). ``batch.value("name")`` reads one.
        events: marks of the user and events that the analysis found.
        segments: the segments of the growth, as dictionaries.
        views: results per azimuth of a rotating growth, as dictionaries.
        profile: latest intensity profile across the streaks, one value per pixel column; empty in batches that the
            server had stored before this subscription.
        stored_unix_ms: when the server had stored the last chunk of the batch (ms since 1970, server clock).
        made_unix_ms: when the server made the batch.
        final: True for the last batch of an analysis.
        lost: number of records of the feed before this one that were lost because they were not read in time.
        angle_deg: azimuth in degrees, for a server without a feed.
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
        """Times of the frames in s since the start of the stream, shape (count,)."""
        return self[TIME]

    def __getitem__(self, name: str) -> Column:
        """Return the values per frame by name, shape (count,); all NaN if there is no such column."""
        column = self.columns.get(name)
        return np.full(self.count, np.nan) if column is None else column

    def value(self, name: str) -> Measurement:
        """Return a scalar by name; if there is none, its ``value`` is None and its ``why`` has the reason."""
        return self.values.get(name, NOT_REPORTED)

    @property
    def growth_rate_ml_s(self) -> float | None:
        """Growth rate in layers per second; None if undetermined (the reason is ``value("growth_rate_ml_s").why``)."""
        return self.value("growth_rate_ml_s").value

    @property
    def growth_rate_sigma(self) -> float | None:
        """Standard uncertainty of the growth rate in layers per second; None if undetermined."""
        return self.value("growth_rate_ml_s").sigma

    @property
    def oscillations_counted(self) -> float | None:
        """Oscillations since the last mark that begins a segment, or since the start; None if undetermined.

        Segments that the analysis began itself, where growth stopped or went on, are counted together.
        """
        return self.value("oscillations_counted").value

    @property
    def layers_grown(self) -> float | None:
        """Layers grown since the same time, one per oscillation; None if undetermined."""
        return self.value("layers_grown").value

    @property
    def lattice_spacing(self) -> float | None:
        """Spacing of the streaks in pixels; None if undetermined."""
        return self.value("lattice_spacing").value

    def to_pandas(self) -> Any:
        """Return the values per frame as a pandas DataFrame; its index is the time in s. Needs pandas."""
        pandas = load("pandas", "to_pandas", "frames")
        columns = {name: values for name, values in self.columns.items() if name != TIME}
        return pandas.DataFrame(columns, index=pandas.Index(self.time_s, name=TIME))

    def _repr_html_(self) -> str:
        title = f"{self._span()}" + ", final" * self.final
        return html.measurements(title, self.values, self.values) + html.events(self.events)

    def plot(self, *names: str) -> Figure:
        """A chart of the values per frame; default: specular intensity and growth rate. Needs matplotlib.

        Raises:
            ConfigError: there is no such column. ImportError: matplotlib is not installed.
        """
        columns = {name: values for name, values in self.columns.items() if name != TIME}
        return plot_columns(self.time_s, columns, names, self._span(), self.events)

    def _span(self) -> str:
        if not self.count:
            return f"after frame {self.start - 1}"
        return f"frames {self.start}-{self.start + self.count - 1}, to {float(self.time_s[-1]):.2f} s"

    def __repr__(self) -> str:
        parts = [f"{name}={self.values[name]}" for name in _REPR_VALUES if name in self.values]
        parts += [
            f"{event.kind} at {event.time_s:.2f} s" for event in self.events if event.time_s is not None
        ]
        parts += ["final"] * self.final + [f"{counted(self.lost, 'record')} lost before"] * bool(self.lost)
        return f"<ResultBatch {self.seq}: {self._span()}; {'; '.join(parts)}>"


def from_message(data_id: str, message: Mapping[str, Any], lost: int = 0) -> ResultBatch:
    """Convert a message of the feed to a batch; ``lost`` records were lost before it.

    Raises:
        ValueError: the message is malformed.
    """
    start, count = (whole_number(message.get(name)) for name in ("start", "count"))
    columns = {_name(name): _column(name, raw) for name, raw in received_map(message.get("columns")).items()}
    lengths = {len(values) for values in columns.values()} - {count}
    if lengths or not 0 <= start <= start + count < 1 << 53 or (count and TIME not in columns):
        raise ValueError(f"a batch of {count} frames from {start} has columns of {sorted(lengths)}")
    return ResultBatch(
        data_id=data_id,
        seq=whole_number(message.get("seq")),
        start=start,
        count=count,
        columns=columns,
        values={
            _name(name): measurement_from(value)
            for name, value in received_map(message.get("values")).items()
        },
        events=tuple(event_from(event) for event in received_maps(message.get("events"))),
        segments=received_maps(message.get("segments")),
        views=received_maps(message.get("views")),
        profile=_column("profile", message.get("profile", b"")),
        stored_unix_ms=finite_or_none(message, "stored_unix_ms"),
        made_unix_ms=finite_or_none(message, "made_unix_ms"),
        final=bool(message.get("final")),
        lost=lost,
    )


def whole_number(value: Any) -> int:
    """Return ``value`` if it is an integer from 0 to 2^53 - 1: a received record number, frame number or count.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a whole number was expected, not {type(value).__name__}")
    if not 0 <= value < 1 << 53:
        raise ValueError("a whole number from 0 to 2^53 - 1 was expected")
    return value


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"a name was expected, not {type(name).__name__}")
    return name


def _column(name: str, raw: Any) -> Column:
    if not isinstance(raw, bytes):
        raise ValueError(f"the bytes of an array were expected, not {type(raw).__name__}")
    return np.frombuffer(raw, dtype="<f8" if name == TIME else "<f4")


def without_first(batch: ResultBatch, count: int) -> ResultBatch:
    """Return a copy of the batch without its first ``count`` frames."""
    from dataclasses import replace

    columns = {name: values[count:] for name, values in batch.columns.items()}
    return replace(batch, start=batch.start + count, count=batch.count - count, columns=columns)
