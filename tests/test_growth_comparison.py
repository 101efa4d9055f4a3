"""Growths on a common time axis: averages, layers, the normal band, and the time at which a growth leaves it."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.growth_comparison import (
    Axis,
    averaged,
    bridged,
    first_mark,
    layers_from,
    leaves_at,
    normal_band,
    plain,
    student_t,
)

NAN = float("nan")


def test_averages_in_steps() -> None:
    """Each step has the mean of its values; one without values is NaN."""
    axis = Axis.over([np.array([0.0, 3.9])], 1.0)
    assert (axis.count, list(axis.centres)) == (4, [0.5, 1.5, 2.5, 3.5])
    found = averaged(np.array([0.1, 0.9, 2.0, 2.5]), np.array([1.0, 3.0, NAN, 5.0]), axis)
    assert plain(found) == [2.0, None, 5.0, None]
    with pytest.raises(ValueError, match="no position"):
        Axis.over([np.empty(0)])
    with pytest.raises(ValueError, match="step"):
        Axis.over([np.array([1.0, 1.0])])


def test_short_gaps_are_bridged() -> None:
    """A gap between two numbers is a straight line if it is short; what lies outside of them stays unknown."""
    values = np.array([NAN, 1.0, NAN, 3.0, NAN, NAN, NAN, 7.0, NAN])
    assert plain(bridged(values, 2)) == [None, 1.0, 2.0, 3.0, None, None, None, 7.0, None]
    assert plain(bridged(values, 3))[4:7] == [4.0, 5.0, 6.0]
    assert plain(bridged(np.array([NAN, 1.0]))) == [None, 1.0]


def test_layers_are_summed_over_segments() -> None:
    """A count that begins again goes on from what was there; errors of less than half a layer do not."""
    counts = np.array([NAN, 0.5, 2.0, 1.9, 2.5, 0.3, 1.3, NAN, 2.0])
    assert plain(layers_from(counts)) == [None, 0.5, 2.0, 2.0, 2.6, 2.9, 3.9, None, 4.6]
    assert plain(layers_from(np.array([NAN]))) == [None]


def test_the_first_mark_of_a_kind_or_text() -> None:
    """The first mark is the earliest in time, not in the list; a mark without a time does not count."""
    marks = [(5.0, "shutter", "open"), (2.0, "shutter", "close"), (NAN, "laser", "on")]
    assert first_mark(marks, "shutter") == 2.0
    assert first_mark(marks, "open") == 5.0
    assert first_mark(marks, "laser") is None


def test_the_band_contains_what_it_states() -> None:
    """Of growths like those that make the band, 95 % lie in it at each step; fewer than three make none."""
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(200):
        level = rng.normal(0.0, 1.0, (5, 1)) + np.zeros((5, 50))
        band = normal_band(level[:4])
        inside.append(bool(band.low[0] <= level[4, 0] <= band.high[0]))
    assert 0.90 <= np.mean(inside) <= 0.99
    values = np.array([[1.0, 1.0, NAN], [2.0, 2.0, 2.0], [3.0, NAN, 3.0]])
    assert [value is None for value in plain(normal_band(values).low)] == [False, True, True]


def test_students_t() -> None:
    """The quantile of Student's t equals that of scipy, from one degree of freedom on."""
    from scipy.stats import t

    for freedom in (1, 2, 5, 10, 11, 20, 300):
        assert student_t(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-3)
    assert np.isnan(student_t(0))


def test_a_growth_that_leaves() -> None:
    """A growth has left the band where it stays outside; a single step outside, or a step without a value, does not
    count."""
    steps = 200
    band = normal_band(np.array([[0.9], [1.0], [1.1]]) + np.zeros((3, steps)))
    values = np.ones(steps)
    assert leaves_at(values, band) is None
    values[50] = 9.0
    assert leaves_at(values, band) is None
    values[120:] = 9.0
    values[121] = NAN
    assert leaves_at(values, band) == 120
    values[120:124] = [9.0, -9.0, 9.0, -9.0]
    assert leaves_at(values, band) == 124
