"""Measurements as text."""

from __future__ import annotations

import pytest

from atomstream.results import Measurement


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (Measurement(0.3994562, 0.0033, "monolayer/s"), "0.3995 ± 0.0033 monolayer/s"),
        (Measurement(5.75769, 0.0538, "oscillations"), "5.758 ± 0.054 oscillations"),
        (Measurement(1234.56, 250.0, "counts"), "1235 ± 250 counts"),
        (Measurement(-0.00005627, 0.00059, "1", note="since a mark"), "-0.00006 ± 0.00059 (since a mark)"),
        (Measurement(0.977918, None, "1"), "0.977918"),
        (Measurement(1.0, 1e-300, "s"), "1 ± 1e-300 s"),
        (Measurement(1.0, float("inf"), "s"), "1 s"),
        (Measurement(None, None, "s", "no frames yet"), "undetermined: no frames yet"),
    ],
)  # fmt: skip
def test_digits_follow_the_uncertainty(measurement: Measurement, text: str) -> None:
    """A number has no more digits than its uncertainty allows, and no unit where it is a plain number."""
    assert str(measurement) == text
