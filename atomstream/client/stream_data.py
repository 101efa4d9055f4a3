"""One stream in the reading client: frames like an array, read when they are used, and results for xarray."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from atomstream import html
from atomstream.client.arguments import Texts
from atomstream.client.lazy_frames import in_pieces, lazy_frames
from atomstream.client.stream_entry import StreamEntry
from atomstream.errors import NotFoundError
from atomstream.long_names import long_name_of
from atomstream.optional import load
from atomstream.plots import plot_columns
from atomstream.records import Frames
from atomstream.results import (
    TIME,
    Event,
    Measurement,
    event_from,
    measurement_from,
    received_map,
    received_maps,
    unit_of,
)

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure

T = TypeVar("T")

KEPT: Final = "frame_kept"
"""The column of a thinned stream that is 1 for the frames that are left."""
CACHED_CHUNKS: Final = 4
"""Chunks that are kept after they were read: neighbouring frames are usually wanted next."""


class Call(Protocol):
    """Runs an asynchronous call and returns its result."""

    def __call__(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``await verb()``."""


class StreamReader(Protocol):
    """The calls of :class:`AsyncClient` that one stream needs."""

    async def analysis(self, data_id: str) -> dict[str, Any]:
        """See :meth:`AsyncClient.analysis`."""

    async def chunk(self, data_id: str, index: int) -> Frames:
        """See :meth:`AsyncClient.chunk`."""

    async def columns(self, data_id: str, names: Texts = None) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`AsyncClient.columns`."""


class StreamData:
    """Frames, results, events and newest values of one stream. ``info`` is its entry in the list."""

    def __init__(self, info: StreamEntry, client: StreamReader, call: Call) -> None:
        self.info = info
        self._client = client
        self._call = call
        self._analysis: dict[str, Any] | None = None

    def refresh(self) -> None:
        """Read the description and the newest values again: a running stream grows."""
        self._analysis = None

    @property
    def frames(self) -> LazyFrames:
        """The frames as a read-only array (n, H, W), as of the last :meth:`refresh`.

        Frames that were never received, or were removed by the server's rules, are 0; its ``kept`` names the others.
        """
        facts = self._facts()
        shape = (
            int(facts.get("n_frames") or facts.get("frames_stored") or 0),
            int(facts.get("height") or 0),
            int(facts.get("width") or 0),
        )
        return LazyFrames(
            shape,
            np.dtype(facts.get("dtype") or "uint8"),
            int(facts.get("chunk_size") or 1),
            self._chunk,
            self._kept,
        )

    def results(self, names: Texts = None) -> xarray.Dataset:
        """Results of each stored frame, with the coordinates ``time`` (s from the first frame) and ``frame``.

        Args:
            names: columns such as ``"growth_rate_ml_s"`` (docs/live_api.md), or one; none: all. Those that the stream
                does not have (yet) are left out.

        Raises:
            ImportError: xarray is not installed.
        """
        xarray = load("xarray", "results", "frames")
        columns = self._call(lambda: self._client.columns(self.info.data_id, names))
        time, frame = columns.pop(TIME), columns.pop("frame")
        return xarray.Dataset(  # type: ignore[no-any-return]  # xarray is imported at run time
            {name: ("time", values, _about(name)) for name, values in columns.items()},
            {
                "time": ("time", time, {"units": "s", "long_name": "capture time since the start"}),
                "frame": ("time", frame, {"long_name": "number of the frame in the stream"}),
            },
            {
                "data_id": self.info.data_id,
                "name": self.info.name,
                "title": self.info.name,
                "sample": self.info.sample or "",
            },
        )

    def to_xarray(self) -> xarray.Dataset:
        """Frames, all results and marks as a Dataset; frames are read when they are used. See ``open_stream``.

        Raises:
            ImportError: xarray is not installed.
        """
        data = self.results()
        frames = self.frames
        about = {"long_name": "RHEED frames", "units": "counts"}
        data["frames"] = in_pieces(lazy_frames(frames, data["frame"].values, about), frames.chunk_size)
        events = self.events
        for name, values, unit in (
            ("mark_time", [event.at_s for event in events], {"units": "s"}),
            ("mark_kind", [event.kind for event in events], {}),
            ("mark_label", [event.label for event in events], {}),
            ("mark_by", [event.by for event in events], {}),
        ):
            data[name] = ("mark", np.array(values, dtype=None if unit else object), unit)
        return data

    def to_pandas(self, names: Texts = None) -> pandas.DataFrame:
        """Results of each stored frame as a DataFrame; its index is the time in s. ``attrs["units"]`` has the units.

        Args:
            names: columns such as ``"growth_rate_ml_s"``; none: all.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = load("pandas", "to_pandas", "frames")
        columns = self._call(lambda: self._client.columns(self.info.data_id, names))
        table = pandas.DataFrame(columns, index=pandas.Index(columns.pop(TIME), name=TIME))
        table.attrs["units"] = {name: unit_of(name) for name in columns}
        return table

    def plot(self, *names: str) -> Figure:
        """A chart of the results over time; default: specular intensity and growth rate. Needs matplotlib.

        Args:
            names: columns such as ``"lattice_spacing"``; each has a separate chart.

        Raises:
            ConfigError: there is no such column. ImportError: matplotlib is not installed.
        """
        columns = self._call(lambda: self._client.columns(self.info.data_id))
        columns.pop("frame")
        return plot_columns(columns.pop(TIME), columns, names, self.info.name, self.events)

    @property
    def values(self) -> dict[str, Measurement]:
        """The newest value of each result, with its uncertainty or the reason why there is none."""
        values = received_map(self._facts().get("values", {}))
        return {name: measurement_from(one) for name, one in values.items()}

    @property
    def events(self) -> list[Event]:
        """Events of users and of the analysis, by time."""
        return [event_from(one) for one in received_maps(self._facts().get("events", []))]

    def _facts(self) -> dict[str, Any]:
        if self._analysis is None:
            self._analysis = self._call(lambda: self._client.analysis(self.info.data_id))
        return self._analysis

    def _kept(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        columns = self._call(lambda: self._client.columns(self.info.data_id, [KEPT]))
        numbers = columns["frame"]
        return numbers, columns.get(KEPT, np.ones(len(numbers))) != 0

    def _chunk(self, index: int) -> Frames | None:
        try:
            return self._call(lambda: self._client.chunk(self.info.data_id, index))
        except NotFoundError:
            return None

    def _repr_html_(self) -> str:
        info = self.info
        rows = [
            ("id", info.data_id),
            ("sample", info.sample or "-"),
            ("project", info.project or "-"),
            ("created", info.created),
            ("length", f"{info.length_s:.1f} s"),
            ("frames", " x ".join(map(str, self.frames.shape))),
            ("status", info.status),
        ]
        values = self.values
        return (
            html.table(info.name, rows)
            + html.measurements("Newest values", values, values)
            + html.events(self.events)
        )

    def __repr__(self) -> str:
        return f"<StreamData {self.info.name!r} {self.info.data_id}, {self.info.length_s:.1f} s, {self.info.status}>"


def _about(name: str) -> dict[str, str]:
    return {"units": unit_of(name), "long_name": long_name_of(name)}


class LazyFrames:
    """A read-only array of frames; indexing reads the chunks that it needs. numpy functions read all of it.

    ``kept`` is True for the frames that the server has: ``frames[frames.kept]`` are these alone.

    ``frames[3]`` is (H, W); ``frames[10:20]``, ``frames[::100]`` and ``frames[10:20, 5:9]`` are arrays of numpy.
    """

    ndim: Final = 3

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        chunk_size: int,
        read: Callable[[int], Frames | None],
        read_kept: Callable[[], tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.chunk_size = chunk_size
        """Frames in a chunk of the stream, which is read as a whole."""
        self._read = read
        self._lock = threading.Lock()
        self._read_kept = read_kept
        self._mask: npt.NDArray[np.bool_] | None = None
        self._kept: OrderedDict[int, Frames | None] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whether the server has each frame, (n,), read-only: False for removed and for never received ones."""
        if self._mask is None:
            numbers, stored = self._read_kept()
            mask = np.zeros(len(self), dtype=bool)
            mask[numbers[stored & (numbers < len(self))]] = True  # a running stream may have grown meanwhile
            mask.flags.writeable = False
            self._mask = mask
        return self._mask

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if first is Ellipsis or first is None or isinstance(first, (bool, np.bool_, tuple)):
            whole: npt.NDArray[Any] = np.asarray(self)[key]
            return whole
        numbers = np.arange(len(self))
        try:
            picked = numbers[first]
        except IndexError as error:
            if isinstance(first, (int, np.integer)):
                raise IndexError(f"frame {first} of {len(self)}") from None
            if np.asarray(first).ndim > 1 and np.asarray(first).dtype == bool:
                masked: npt.NDArray[Any] = np.asarray(self)[key]
                return masked
            raise IndexError(str(error)) from None
        if isinstance(first, slice):
            return self._frames(picked)[(slice(None), *rest)]
        # numpy's own rules for several indices hold, because the same indices are used on the frames that were read.
        needed, places = np.unique(picked, return_inverse=True)
        place = int(places.reshape(-1)[0]) if np.ndim(picked) == 0 else places.reshape(np.shape(picked))
        found: npt.NDArray[Any] = self._frames(needed)[(place, *rest)]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("the frames are on the server: an array of them is always a copy")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def _frames(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        out = np.zeros((len(numbers), *self.shape[1:]), self.dtype)
        chunks = numbers // self.chunk_size
        for index in np.unique(chunks).tolist():
            frames = self._chunk(index)
            if frames is None:
                continue
            for place in np.flatnonzero(chunks == index).tolist():
                inside = int(numbers[place]) - index * self.chunk_size
                if inside < len(frames):
                    out[place] = frames[inside]
        return out

    def _chunk(self, index: int) -> Frames | None:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        frames = self._read(index)  # may be called by several threads at once, as dask does
        # The last chunk of a running stream may get longer in the next description, which makes a new object.
        with self._lock:
            self._kept[index] = frames
            if len(self._kept) > CACHED_CHUNKS:
                self._kept.popitem(last=False)
        return frames

    def __repr__(self) -> str:
        return f"<LazyFrames {self.shape} {self.dtype}>"
