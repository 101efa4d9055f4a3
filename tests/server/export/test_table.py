"""The texts of the cells of a CSV."""

from __future__ import annotations

import numpy as np

from atomstream.server.export.growth import utc_text
from atomstream.server.export.table import _texts, _utc_texts, number_text


def test_times_are_those_of_single_ones() -> None:
    """UTC in ms, also before 1970; empty where there is no time, or one that is in no calendar."""
    times = np.array([0.0, 1.7e12 + 33.333, 1.7e12 + 999.9996, -1.5, 32_503_680_000_000.25])
    assert _utc_texts(times) == [utc_text(time) for time in times.tolist()]
    assert _utc_texts(times)[1] == "2023-11-14T22:13:20.033Z"
    nowhere = np.array([np.nan, np.inf, -np.inf, 1e300, 253_402_300_800_000.0, -1e15])
    assert _utc_texts(nowhere) == [""] * 6 == [utc_text(time) for time in nowhere[3:].tolist()] * 2


def test_numbers_are_those_of_single_ones() -> None:
    """Equal neighbours are formatted once, with the same result; NaN is empty."""
    values = np.array([1.0, 1.0, 0.1 + 0.2, np.nan, np.nan, 1.0, 0.0, -0.0, 1e-9])
    assert _texts(values) == [number_text(abs(value)) for value in values.tolist()]
    assert _texts(values[:0]) == []
