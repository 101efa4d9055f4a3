"""The text of a length of time."""

from __future__ import annotations

import pytest

from atomstream.durations import clock_text

CASES = [
    (0.0, 1, "0:00.0"),
    (4.24, 1, "0:04.2"),
    (59.94, 1, "0:59.9"),
    (59.96, 1, "1:00.0"),
    (59.996, 2, "1:00.00"),
    (3599.96, 1, "1:00:00.0"),
    (7384.0, 0, "2:03:04"),
    (-1.5, 1, "-0:01.5"),
    (-0.01, 1, "0:00.0"),
]


@pytest.mark.parametrize(("seconds", "decimals", "text"), CASES)
def test_it_is_rounded_before_it_is_divided(seconds: float, decimals: int, text: str) -> None:
    """No text has 60 seconds or 60 minutes, or a minus before zero."""
    assert clock_text(seconds, decimals) == text
