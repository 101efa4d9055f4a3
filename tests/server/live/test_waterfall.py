"""The history of a line profile: bounded, averaged, and kept over a restart."""

from __future__ import annotations

import numpy as np

from atomstream.server.live.waterfall import MAX_COLUMNS, ROWS, Waterfall


def test_hours_stay_within_the_rows() -> None:
    """At any length there are at most ROWS rows, evenly in time, each the mean of its interval."""
    fall = Waterfall()
    times = np.arange(0.25, 4.0 * ROWS, 0.5)
    for time in times:
        fall.add(float(time), np.array([time, 1.0], np.float32))
    rows = fall.rows()
    assert ROWS // 2 < len(rows) <= ROWS
    middles = fall.start_s + fall.step_s * (np.arange(len(rows)) + 0.5)
    assert np.abs(rows[:-1, 0] - middles[:-1]).max() <= 0.5
    assert (rows[:, 1] == 1.0).all()


def test_a_gap_is_not_a_number() -> None:
    """An interval without a measurement is NaN, not the previous value."""
    fall = Waterfall()
    fall.add(10.0, np.ones(3, np.float32))
    fall.add(12.1, np.full(3, 5.0, np.float32))
    assert np.isnan(fall.rows()[1:4]).all()
    assert (fall.rows()[4] == 5.0).all()


def test_another_length_restarts_the_history() -> None:
    """A line that was moved has another length: its history starts there."""
    fall = Waterfall()
    fall.add(1.0, np.ones(3, np.float32))
    fall.add(9.0, np.ones(4, np.float32))
    assert fall.rows().shape == (1, 4)
    assert fall.start_s == 9.0


def test_kept_and_followed() -> None:
    """The stored history is equal; a second history receives what the first has beyond its end."""
    first, second = Waterfall(), Waterfall()
    for step in range(8):
        first.add(0.5 * step, np.full(2, step, np.float32))
    for step in range(5):
        second.add(0.5 * step, np.full(2, 100 + step, np.float32))
    kept = Waterfall.from_plain(first.plain())
    np.testing.assert_array_equal(kept.rows(), first.rows())
    second.follow(kept)
    np.testing.assert_array_equal(second.rows()[:, 0], [100, 101, 102, 103, 104, 5, 6, 7])


def test_a_long_profile_is_shortened() -> None:
    """Of a profile with more than MAX_COLUMNS values, neighbouring ones are averaged: its memory is bounded."""
    fall = Waterfall()
    fall.add(0.0, np.arange(10 * MAX_COLUMNS + 1, dtype=np.float32))
    (row,) = fall.rows()
    assert len(row) <= MAX_COLUMNS
    assert row[0] == np.arange(11).mean()
