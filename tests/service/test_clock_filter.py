"""The clock filter: what it says is true within what it claims."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.service.clock import SLEW_RATE, ClockFilter, Exchange

TRUE_MS = 1_700_000_000_000.0
"""Reference UTC minus monotonic time, in these tests' world."""


def exchange(sent: float, out: float, back: float, held: float = 0.0, theta: float = TRUE_MS) -> Exchange:
    """An exchange whose request took ``out`` ms, whose answer ``back``, over a clock ``theta`` ahead."""
    received = sent + out + held + back
    return Exchange.between(sent, received, (sent + out + theta, sent + out + held + theta))


def test_symmetric_exchange_is_exact() -> None:
    """Equal ways there and back give the offset itself, and the server's own time is not in the delay."""
    one = exchange(1000.0, 20.0, 20.0, held=500.0)
    assert (one.theta_ms, one.delay_ms) == (TRUE_MS, 40.0)
    assert one.mono_ms == 1540.0


def test_lying_server_is_not_believed_in_its_holding() -> None:
    """A server that claims to have held the request longer than it was under way gains no certainty."""
    for rx, tx in ((100.0, 400.0), (400.0, 100.0)):
        assert Exchange.between(0.0, 50.0, (rx, tx)).delay_ms == 50.0


ways = st.floats(0.0, 2000.0)


@given(st.lists(st.tuples(ways, ways, st.floats(0.0, 600_000.0)), min_size=1, max_size=20))
def test_truth_lies_within_the_uncertainty(exchanges: list[tuple[float, float, float]]) -> None:
    """However unequal the ways, the reference lies within the stated uncertainty, before and after each one."""
    weigh, now = ClockFilter(), 0.0
    for out, back, pause in exchanges:
        estimate = weigh.add(exchange(now, out, back))
        now += out + back
        for later in (now, now + pause):
            assert abs(estimate.theta_ms(later) - TRUE_MS) <= estimate.uncertainty_ms(later) + 1e-2
        now += pause


def test_tightest_of_the_last_eight_counts() -> None:
    """A quick exchange outweighs slow ones until it is the ninth back, or has aged beyond them."""
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
    """A better exchange pulls the stamps over at 500 ppm, without a step, and the rest counts as uncertain."""
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
    """While it is slewed, reference time goes on within 0.05 % of the monotonic one's pace."""
    weigh = ClockFilter()
    weigh.add(exchange(0.0, 500.0, 500.0, theta=TRUE_MS + gap))
    estimate = weigh.add(exchange(2000.0, 1.0, 1.0))
    moments = sorted(2002.0 + moment for moment in moments)
    for a, b in itertools.pairwise(moments):
        gone = (b - a) + estimate.theta_ms(b) - estimate.theta_ms(a)
        assert abs(gone - (b - a)) <= SLEW_RATE * (b - a) + 1e-3


def test_large_difference_steps_and_forgets() -> None:
    """Where old exchanges contradict the new one (a sleep, a server's new clock), they are forgotten at once."""
    weigh = ClockFilter()
    for k in range(8):
        weigh.add(exchange(k * 2000.0, 1.0, 1.0))
    estimate = weigh.add(exchange(20_000.0, 40.0, 40.0, theta=TRUE_MS + 60_000.0))
    assert estimate.theta_ms(20_080.0) == TRUE_MS + 60_000.0
    assert estimate.uncertainty_ms(20_080.0) == pytest.approx(40.0)
