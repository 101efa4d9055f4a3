"""What moves with the spot's position is not reported as growth."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import varpro
from atomstream.analysis.linear_part import Model
from atomstream.analysis.motion import MAX_MOTION_SHARE, motion_share

T = np.arange(0, 20, 0.05)


def _share(trace_hz: float, motion: np.ndarray) -> float:
    y = 1000.0 * (1 + 0.05 * np.sin(2 * np.pi * trace_hz * T))
    fit = varpro.fit(T, y, trace_hz, Model(1, False))
    assert fit is not None
    return motion_share(T, y, motion, fit, 0.0)


@pytest.mark.parametrize("motion_hz", [0.4, 0.8], ids=["same frequency", "twice the frequency"])
def test_motion_at_the_rate_of_the_oscillation_explains_it(motion_hz: float) -> None:
    """Motion with twice the effect of the oscillation has a share of 2, at the same and at twice the frequency."""
    motion = 0.1 * np.cos(2 * np.pi * motion_hz * T + 0.7)
    assert _share(0.4, motion) == pytest.approx(2.0, rel=0.05)


def test_motion_at_another_rate_explains_nothing() -> None:
    """Motion at another frequency, little motion, a drift, and unknown motion have a small share."""
    assert _share(0.4, 0.1 * np.cos(2 * np.pi * 1.1 * T)) < 0.1 * MAX_MOTION_SHARE
    assert _share(0.4, 0.002 * np.cos(2 * np.pi * 0.4 * T)) < 0.1 * MAX_MOTION_SHARE
    assert _share(0.4, 0.02 * T) < 0.1 * MAX_MOTION_SHARE
    assert _share(0.4, np.full(len(T), np.nan)) == 0
