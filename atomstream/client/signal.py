"""The points of one channel of an instrument, as the reading client returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.errors import ServerBusyError

F64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """``values[i]`` was measured at ``times[i]``, in s since 1970 (UTC); both are (n,), sorted by time.

    NaN means no value. ``units`` is the unit of the values; None if it was not given.
    """

    times: F64
    values: F64
    units: str | None


def signals_of(data_id: str, properties: Mapping[str, Any]) -> dict[str, Signal]:
    """The channels in a reply of the server.

    Raises:
        ServerBusyError: the reply has another form.
    """
    try:
        return {name: _signal(one) for name, one in properties.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerBusyError(
            f"The signals of stream {data_id} came in an invalid form: {error!r}."
        ) from None


def _signal(one: Mapping[str, Any]) -> Signal:
    times = np.asarray(one["unix_timestamp_ms"], dtype=np.float64) / 1000.0
    values = np.array(
        [np.nan if value is None else float(value) for value in one["values"]], dtype=np.float64
    )
    if times.shape != values.shape or times.ndim != 1:
        raise ValueError(f"{times.shape} times and {values.shape} values")
    units = one.get("units")
    return Signal(times, values, units if isinstance(units, str) else None)
