"""``compare``: one result of several growths over a common time axis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from atomstream.client.dataset import open_stream
from atomstream.errors import ConfigError
from atomstream.growth_comparison import Axis, averaged, first_mark
from atomstream.optional import load

if TYPE_CHECKING:
    import xarray


def compare(
    growths: Iterable[str | os.PathLike[str] | xarray.Dataset] | Mapping[str, Any],
    column: str = "growth_rate_ml_s",
    *,
    align: str | None = None,
    step_s: float | None = None,
) -> xarray.DataArray:
    """One result of several growths as an array (growth, time), such as for ``.plot.line(x="time")``.

    Args:
        growths: streams as :func:`open_stream` takes them, or Datasets of it. A mapping gives names for the legend;
            without it these are the names of the streams.
        column: a result with one value per frame, such as ``"specular_intensity"``.
        align: kind or text of a mark, such as ``"shutter"``: time 0 is the first such mark of each growth. None: the
            first frame.
        step_s: step of the time axis in s, over which values are averaged; None: 1/2000 of the longest growth, at
            least one frame.

    Raises:
        ConfigError: a growth has no such column or mark, or there is no growth.
        NotFoundError: the server has no such stream.
        ImportError: xarray is not installed.
    """
    xarray = load("xarray", "compare", "frames")
    with ExitStack() as stack:
        named = dict(_named(growths, stack))
        if not named:
            raise ConfigError("There is no growth to compare.")
        series = {name: _series(name, growth, column, align) for name, growth in named.items()}
        first = next(iter(named.values()))
        attributes = dict(first[column].attrs)
    times = [time_s for time_s, _ in series.values() if len(time_s)]
    if not times:
        raise ConfigError("None of the growths has a frame.")
    frame_s = min((float(np.median(np.diff(t))) for t in times if len(t) > 1), default=1.0)
    try:
        axis = Axis.over(times, step_s, least=frame_s)
    except ValueError:
        raise ConfigError(f"step_s is {step_s}; it must be finite and above 0.") from None
    grid = axis.centres
    values = np.stack([averaged(time_s, found, axis) for time_s, found in series.values()])
    origin = "the first frame" if align is None else f"the mark {align!r}"
    time = ("time", grid, {"units": "s", "long_name": f"time from {origin}"})
    names = ("growth", np.array(list(series), dtype=object))
    return xarray.DataArray(  # type: ignore[no-any-return]  # xarray is imported at run time
        values, {"growth": names, "time": time}, ("growth", "time"), name=column, attrs=attributes
    )


def _named(growths: Any, stack: ExitStack) -> Iterator[tuple[str, Any]]:
    if isinstance(growths, str | bytes | os.PathLike) or not isinstance(growths, Iterable):
        raise TypeError(
            f"growths must be a list of streams, or a dict with their names, not {type(growths).__name__}."
        )
    pairs = growths.items() if isinstance(growths, Mapping) else ((None, growth) for growth in growths)
    seen: dict[str, int] = {}
    for given, growth in pairs:
        opened = growth
        if isinstance(growth, (str, os.PathLike)):
            opened = stack.enter_context(open_stream(growth, with_removed=True))
        if not hasattr(opened, "attrs"):
            raise TypeError(f"A growth must be a stream or a Dataset, not {type(growth).__name__}.")
        name = str(
            given or opened.attrs.get("name") or opened.attrs.get("title") or opened.attrs.get("data_id")
        )
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), opened


def _series(name: str, growth: Any, column: str, align: str | None) -> tuple[Any, Any]:
    if column not in growth or growth[column].dims != ("time",):
        known = sorted(str(one) for one in growth if growth[one].dims == ("time",))
        raise ConfigError(f"{name} has no result {column!r}; it has: {', '.join(known) or 'none'}.")
    time_s = np.asarray(growth["time"].values, dtype=np.float64)
    values = np.asarray(growth[column].values, dtype=np.float64)
    known_times = np.isfinite(time_s)
    time_s, values = time_s[known_times], values[known_times]
    order = np.argsort(time_s, kind="stable")
    return time_s[order] - _zero(name, growth, align), values[order]


def _zero(name: str, growth: Any, align: str | None) -> float:
    if align is None:
        return 0.0
    marks = []
    if "mark_time" in growth:
        columns = (growth[f"mark_{part}"].values for part in ("time", "kind", "label"))
        marks = list(zip(*columns, strict=True))
    zero_s = first_mark([(time_s, str(kind), str(label)) for time_s, kind, label in marks], align)
    if zero_s is None:
        texts = ", ".join(sorted({repr(str(label)) for _, _, label in marks})) or "none"
        raise ConfigError(f"{name} has no mark of the kind or text {align!r}; its marks: {texts}.")
    return zero_s
