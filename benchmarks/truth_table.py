"""Accuracy table: results of the analysis for simulated growths, compared with the true values.

Run it with ``python -m benchmarks.truth_table``.

Without arguments one setting is varied at a time; ``--full`` runs the whole grid of 324 growths (about half an hour
on one core). Frames are 160x120 pixels, so that a case takes seconds. For up to 0.2 layers per second the camera takes
30 frames per second, where hum at 59.3 Hz appears at 0.7 Hz.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from atomstream.analysis import Analysis, Calibration, analyze
from atomstream.sources.sim_spec import GrowthSpec, no_signal_specs
from atomstream.sources.simulator import Simulator

RATES = (0.016, 0.1, 0.25, 0.4, 0.8, 2.5)
RPMS = (0.0, 6.0, 15.0)
GAINS = (0.25, 1.0, 2.0)
HUMS = (0.0, 0.01, 0.07)
DRIFTS = (0.0, 0.05)
HUM_HZ = 59.3
"""Not a multiple of the frame rate: at 60 Hz and phase 0 a camera of 120 or 30 fps would see no hum."""

CYCLES = 7.0
SMALL: dict[str, Any] = {"height": 120, "width": 160}


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated growth: ``seconds`` of ``spec``."""

    spec: GrowthSpec
    seconds: float

    @property
    def name(self) -> str:
        """Description of the case."""
        s = self.spec
        text = f"F {s.rate_ml_s:<5g} rpm {s.rpm:<3g} gain {s.gain:<4g} hum {100 * s.hum:g} % {s.hum_hz:g} Hz"
        return text + (f" drift {s.drift_px_s[0]:g}" if any(s.drift_px_s) else "")


@dataclass(frozen=True, slots=True)
class Row:
    """Result of a case: errors in per cent, ``pull`` in units of the stated sigma, layers absolute.

    ``changes`` is the number of changes of the pattern that were reported; no case has any.
    """

    case: Case
    error: float
    sigma: float
    pull: float
    layers_error: float
    spacing_error: float
    milliseconds: float
    changes: int
    why: str


def case(rate: float = 0.4, rpm: float = 0.0, drift: float = 0.0, seed: int = 0, **spec: Any) -> Case:
    """Make a case long enough for seven oscillations, and under rotation for four turns."""
    seconds = max(CYCLES / rate, 240.0 / rpm if rpm else 0.0, 8.0)
    fps = 120.0 if rate > 0.2 or "hum_hz" in spec else 30.0
    hum = {"hum_hz": HUM_HZ, "hum_phase_rad": 1.0}
    drifts = {"drift_px_s": (drift * SMALL["width"] / 640, drift * SMALL["width"] / 640)} if drift else {}
    settings = {**SMALL, "rate_ml_s": rate, "rpm": rpm, "fps": fps, "seed": seed, **hum, **drifts, **spec}
    return Case(GrowthSpec(**settings), seconds)


def short_grid(seed: int = 0) -> Iterator[Case]:
    """Return cases with all rates and rotations, then each other setting alone."""
    yield from (case(rate, rpm, seed=seed) for rate, rpm in itertools.product(RATES, RPMS))
    for rate in (0.1, 0.4, 2.5):
        yield from (case(rate, gain=gain, seed=seed) for gain in (0.25, 2.0))
        yield from (case(rate, hum=hum, seed=seed) for hum in (0.0, 0.07))
        yield case(rate, drift=0.05, seed=seed)
    yield from (case(0.4, hum=0.07, hum_hz=hz, seed=seed) for hz in (50.0, 59.3, 59.94, 60.0))
    yield from (case(rate, rpm, seed=seed) for rate, rpm in ((0.5, 15.0), (0.2, 6.0), (0.75, 15.0)))


def full_grid(seed: int = 0) -> Iterator[Case]:
    """Return all combinations, fast growths first, because the slow ones take most of the time."""
    for rate, rpm, gain, hum, drift in itertools.product(
        sorted(RATES, reverse=True), RPMS, GAINS, HUMS, DRIFTS
    ):
        yield case(rate, rpm, drift, seed, gain=gain, hum=hum)


class Film:
    """Frames of a case, simulated when they are sliced."""

    def __init__(self, of: Case) -> None:
        self._simulator = Simulator(of.spec)
        self._count = round(of.seconds * of.spec.fps)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, cut: slice) -> np.ndarray:
        return self._simulator.frames(cut.start, min(cut.stop, self._count) - cut.start)


def analysed(of: Case) -> Analysis:
    """Analyse a case as its stream would be."""
    spec = of.spec
    known = Calibration(
        spec.energy_kev, spec.screen_distance_mm, spec.px_per_mm * spec.scale, spec.incidence_deg
    )
    return analyze(Film(of), spec.fps, spec.rpm, calibration=known)  # type: ignore[arg-type]  # Film is sliced like an array


def run(of: Case) -> Row:
    """Analyse a case and compare the end with the truth."""
    began = time.perf_counter()
    answer = analysed(of)
    spent = 1e3 * (time.perf_counter() - began) / max(1, round(of.seconds * of.spec.fps))
    truth = Simulator(of.spec).truth(len(answer.frames["time_seconds"]) - 1)
    rate, true = answer.values["growth_rate_ml_s"], of.spec.rate_ml_s
    off = float(rate) - true
    spacing = float(answer.values["lattice_spacing"]) / float(truth.spacing_px[0]) - 1.0
    return Row(
        of,
        100 * off / true,
        100 * (rate.sigma or math.nan) / true,
        off / rate.sigma if rate.sigma else math.nan,
        float(answer.values["layers_grown"]) - float(truth.layers[0]),
        100 * spacing,
        spent,
        sum(event.kind == "change" for event in answer.events),
        rate.why,
    )


def line(row: Row) -> str:
    """Format a row."""
    numbers = (
        f"{row.error:9.3f}{row.sigma:9.3f}{row.pull:7.1f}{row.layers_error:8.2f}{row.spacing_error:11.3f}"
    )
    return f"{row.case.name:<54}{numbers}{row.milliseconds:10.2f}  {row.why}"


def summary(rows: list[Row]) -> str:
    """Summarise errors and pulls of all rows with a number."""
    determined = [r for r in rows if math.isfinite(r.error)]
    if not determined:
        return f"0 of {len(rows)} determined"
    errors, pulls = np.abs([r.error for r in determined]), np.abs([r.pull for r in determined])
    return (
        f"{len(determined)} of {len(rows)} determined; "
        f"|error| median {np.median(errors):.3f} %, worst {errors.max():.3f} %; "
        f"|pull| worst {pulls.max():.1f}"
    )


def print_no_signal(seed: int) -> None:
    """Print the results for growths without a signal, which must be undetermined."""
    print(f"\n{'no signal':<44}rate")
    for name, spec in no_signal_specs(replace(GrowthSpec(seed=seed), **SMALL)).items():
        print(f"{name:<44}{analysed(Case(spec, 16.0)).values['growth_rate_ml_s']}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole grid (half an hour)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="only these rates, in ML/s")
    parser.add_argument("--seed", type=int, default=0, help="of the simulator's noise")
    options = parser.parse_args()
    print(
        f"{'growth':<54}{'error %':>9}{'sigma %':>9}{'pull':>7}{'layers':>8}{'spacing %':>11}{'ms/frame':>10}"
    )
    rows = []
    for one in (full_grid if options.full else short_grid)(options.seed):
        if one.spec.rate_ml_s in options.rates:
            rows.append(run(one))
            print(line(rows[-1]), flush=True)
    print("\n" + summary(rows))
    print_no_signal(options.seed)


if __name__ == "__main__":
    main()
