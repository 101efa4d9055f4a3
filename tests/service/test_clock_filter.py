"""The clock filter: its estimate is correct within the stated uncertainty."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.service.clock import SLEW_RATE, ClockFilter, Exchange

TRUE_MS = 1_700_000_000_000.0
"""Reference UTC minus monotonic time in these tests, in ms."""


def exchange(sent: float, out: float, back: float, held: float = 0.0, theta: float = TRUE_MS) -> Exchange:
    """An exchange with ``out`` ms for the request and ``back`` ms for the reply, and a clock ``theta`` ms ahead."""
    received = sent + out + held + back
    return Exchange.between(sent, received, (sent + out + theta, sent + out + held + theta))


def test_symmetric_exchange_is_exact() -> None:
    """With equal delays of request and reply the offset is exact. The server's processing time is not in the delay."""
    one = exchange(1000.0, 20.0, 20.0, held=500.0)
    assert (one.theta_ms, one.delay_ms) == (TRUE_MS, 40.0)
    assert one.mono_ms == 1540.0


def test_impossible_processing_time_is_ignored() -> None:
    """A processing time longer than the round trip does not reduce the uncertainty."""
    for rx, tx in ((100.0, 400.0), (400.0, 100.0)):
        assert Exchange.between(0.0, 50.0, (rx, tx)).delay_ms == 50.0


ways = st.floats(0.0, 2000.0)


@given(st.lists(st.tuples(ways, ways, st.floats(0.0, 600_000.0)), min_size=1, max_size=20))
def test_reference_lies_within_the_uncertainty(exchanges: list[tuple[float, float, float]]) -> None:
    """For any delays, the reference lies within the stated uncertainty, before and after each exchange."""
    weigh, now = ClockFilter(), 0.0
    for out, back, pause in exchanges:
        estimate = weigh.add(exchange(now, out, back))
        now += out + back
        for later in (now, now + pause):
            assert abs(estimate.theta_ms(later) - TRUE_MS) <= estimate.uncertainty_ms(later) + 1e-2
        now += pause


def test_most_precise_of_the_last_eight_is_used() -> None:
    """A fast exchange is preferred to slow ones until it is the ninth last, or too old."""
    weigh = ClockFilter()
    quick = exchange(0.0, 1.0, 1.0)
    weigh.add(quick)
    for k in range(1, 8):
        assert weigh.add(exchange(k * 2000.0, 30.0, 60.0)).best is quick
    assert weigh.add(exchange(16_000.0, 30.0, 60.0)).best is not quick
    weigh = ClockFilter()
    weigh.add(quick)
    assert weigh.add(exchange(300_000.0, 2.0, 2.0)).best is not quick


def test_small_correction_is_slewed() -> None:
    """A better exchange corrects timestamps at 500 ppm without a step; the rest is part of the uncertainty."""
    weigh = ClockFilter()
    weigh.add(exchange(0.0, 0.0, 200.0))
    before = weigh.estimate
    assert before is not None
    after = weigh.add(exchange(10_000.0, 1.0, 1.0))
    now = 10_002.0
    assert after.theta_ms(now) == before.theta_ms(now) == TRUE_MS - 100.0
    assert after.uncertainty_ms(now) == pytest.approx(101.0)
    assert after.theta_ms(now + 1000.0) == pytest.approx(TRUE_MS - 100.0 + 1000.0 * SLEW_RATE, abs=1e-3)
    assert after.theta_ms(now + 100.0 / SLEW_RATE) == pytest.approx(TRUE_MS, abs=1e-3)
    assert after.theta_ms(now + 1e9) == after.best.theta_ms


@given(st.floats(-900.0, 900.0), st.lists(st.floats(0.0, 3e6), min_size=2, max_size=10))
def test_slewed_time_never_runs_backwards(gap: float, moments: list[float]) -> None:
    """During a correction, reference time advances within 0.05 % of the rate of the monotonic clock."""
    weigh = ClockFilter()
    weigh.add(exchange(0.0, 500.0, 500.0, theta=TRUE_MS + gap))
    estimate = weigh.add(exchange(2000.0, 1.0, 1.0))
    moments = sorted(2002.0 + moment for moment in moments)
    for a, b in itertools.pairwise(moments):
        gone = (b - a) + estimate.theta_ms(b) - estimate.theta_ms(a)
        assert abs(gone - (b - a)) <= SLEW_RATE * (b - a) + 1e-3


def test_large_difference_is_corrected_in_one_step() -> None:
    """If old exchanges contradict the new one (a sleep, a new server clock), they are removed at once."""
    weigh = ClockFilter()
    for k in range(8):
        weigh.add(exchange(k * 2000.0, 1.0, 1.0))
    estimate = weigh.add(exchange(20_000.0, 40.0, 40.0, theta=TRUE_MS + 60_000.0))
    assert estimate.theta_ms(20_080.0) == TRUE_MS + 60_000.0
    assert estimate.uncertainty_ms(20_080.0) == pytest.approx(40.0)
