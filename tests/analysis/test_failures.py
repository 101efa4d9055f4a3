"""An error in one step of the analysis is reported once and hides neither other steps nor other errors."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.failures import VALUES_OF, Failures, Step
from atomstream.analysis.surface import SurfaceTracker
from atomstream.results import measured
from tests.analysis.spot_film import spot_film


def _run(failures: Failures, step: Step, error: Exception | None = None) -> None:
    with failures.contained(step, 1.0):
        if error:
            raise error


def test_an_error_that_comes_and_goes_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A step that fails every second time has one traceback, and later lines with the number of errors."""
    failures = Failures()
    with caplog.at_level(logging.ERROR, "atomstream.analysis"):
        for _ in range(150):
            _run(failures, "streaks", ValueError("odd"))
            _run(failures, "streaks")
    assert [bool(r.exc_info) for r in caplog.records] == [True, False, False]
    assert ["10 errors" in caplog.messages[1], "100 errors" in caplog.messages[2]] == [True, True]
    _run(failures, "streaks", KeyError("another"))
    assert caplog.records[-1].exc_info


@pytest.mark.parametrize("step", VALUES_OF)
def test_a_working_step_does_not_cover_another(step: Step) -> None:
    """The values of a failed step stay undetermined while all other steps work."""
    failures = Failures()
    _run(failures, step, ValueError("odd"))
    for other in VALUES_OF:
        if other != step:
            _run(failures, other)
    values = failures.apply({name: measured(1.0, 0.1) for name in VALUES_OF[step]})
    assert values
    assert all("internal error" in value.why for value in values.values())
    _run(failures, step)
    assert failures.reasons == {}


def test_a_step_of_each_block_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in each block of 0.1 s leaves one traceback, although the slow blocks between have none."""

    def fails(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SurfaceTracker, "update_block", fails)
    analyzer = Analyzer(20.0)
    batch = analyzer.feed(0, spot_film(np.ones(60), shape=(60, 80), fwhm=(6.6, 3.0)))
    assert sum(bool(record.exc_info) for record in caplog.records) == 1
    assert "ZeroDivisionError" in batch.values["lattice_spacing"].why
    assert "internal error" not in batch.values["growth_rate_ml_s"].why
