"""Decides which readings ("looks", see :mod:`.watch`) of a film are right and which are false, and adds up films to
rows of the table.

A number is *false* if it is more than 3 sigma and more than 2 % off the true rate at that time, or if nothing grows.
Where two readings of the oscillation are fair, the other one is right only if its note names the true rate too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from benchmarks.truth.watch import Record

TOLERANCE = 0.02
"""Relative error up to which a number is right whatever its sigma."""

RIGHT, FALSE, SILENT, QUIET, OPEN, NAMED = "right", "false", "silent", "quiet", "open", "named"
"""Verdicts. ``silent``: no number although layers grow; ``quiet``: none where nothing grows; ``open``: not judged;
``named``: no number, because two readings are fair, and the reason names the true rate."""

_NUMBER = re.compile(r"\d+\.?\d*(?:e[-+]?\d+)?")


def pull(look: Record, slack: float = 0.0) -> float:
    """Return the error of a look in units of its sigma, to which the uncertainty of the truth is added."""
    error = abs(look["rate"] - look["true"])
    sigma = math.hypot(look["sigma"] or 0.0, slack * look["true"])
    return error / sigma if sigma > 0 else math.inf


def verdict(look: Record, slack: float = 0.0) -> str:
    """Return the verdict on one look."""
    reported, true = look["rate"], look["true"]
    if true is None:
        return FALSE if reported is not None and look["ceiling"] and reported > look["ceiling"] else OPEN
    if reported is None:
        if true > 0 and look["readings"] and _names(look["why"], true):
            return NAMED
        return SILENT if true > 0 else QUIET
    if not true > 0:
        return FALSE
    if abs(reported - true) <= TOLERANCE * true or pull(look, slack) <= 3:
        return RIGHT
    sigma = look["sigma"] or 0.0
    near = any(abs(reported - reading) <= max(TOLERANCE * reading, 3 * sigma) for reading in look["readings"])
    return RIGHT if near and _names(look["note"], true) else FALSE


def _names(text: str, rate: float) -> bool:
    """Return True if a text holds the number ``rate`` within 3 %."""
    return any(abs(float(n) - rate) <= 0.03 * rate for n in _NUMBER.findall(text))


def layers_error(look: Record, name: str = "layers") -> float:
    """Return the error of a count of layers, the smallest over all valid starts of the count; NaN without one."""
    reported = look[name]
    if reported is None or not look["true_layers"]:
        return math.nan
    return min((reported - true for true in look["true_layers"]), key=abs)


@dataclass(slots=True)
class FilmScore:
    """Result of one film."""

    kind: str
    seed: int
    crash: str
    verdicts: list[str]
    pulls: list[float] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    first: float = math.nan
    again: list[float] = field(default_factory=list)
    withdrawn: bool = False
    falls: int = 0
    layer_errors: list[float] = field(default_factory=list)
    layers_wrong: int = 0
    false_periods: float = 0.0
    stop_periods: float = math.nan
    stop_error: float = math.nan
    baseline_right: int = 0
    both_right: int = 0
    only_we: int = 0
    summary_false: bool = False
    final_false: bool = False
    alarms: int = 0

    @property
    def reported(self) -> int:
        """Numbers reported at times that are judged."""
        return self.verdicts.count(RIGHT) + self.verdicts.count(FALSE)


def score(record: Record) -> FilmScore:
    """Score the record of one film."""
    looks, slack = record["looks"], record["slack"]
    out = FilmScore(record["kind"], record["seed"], record["crash"], [verdict(k, slack) for k in looks])
    for look, said in zip(looks, out.verdicts, strict=True):
        if look["rate"] is not None and look["true"] and said in (RIGHT, FALSE):
            out.pulls.append(pull(look, slack))
            out.sigmas.append((look["sigma"] or 0.0) / look["rate"])
        error = layers_error(look)
        if math.isfinite(error) and look["true"] is not None:
            out.layer_errors.append(error)
            out.layers_wrong += abs(error) > max(3 * (look["layers_sigma"] or 0.0), 0.2)
    firsts = _first_right(looks, out.verdicts)
    if firsts:
        out.first, *out.again = firsts
    out.withdrawn = _withdrawn(looks, out.verdicts)
    out.falls = _falls(looks)
    out.false_periods = _longest_false(looks, out.verdicts)
    _score_stop(record, out)
    _score_checks(record, out)
    out.summary_false = _summary_false(record)
    out.final_false = "final" in record and verdict(record["final"], slack) == FALSE
    out.alarms = sum(kind in ("fractional_order", "change") for _, kind, _ in record.get("events", ()))
    return out


LONG_ENOUGH = 2.5
"""Growths shorter than this many periods need not give a number."""


def _first_right(looks: list[Record], verdicts: list[str]) -> list[float]:
    """Return the periods from the start of each growth (or change) to its first right number, infinite if none."""
    found: dict[float, float] = {}
    grown: dict[float, float] = {}
    for look, said in zip(looks, verdicts, strict=True):
        if look["true"]:
            grown[look["since"]] = (look["t"] - look["since"]) * look["true"]
            if said == RIGHT:
                found.setdefault(look["since"], grown[look["since"]])
    return [found.get(at, math.inf) for at in grown if at in found or grown[at] > LONG_ENOUGH]


def _withdrawn(looks: list[Record], verdicts: list[str]) -> bool:
    """Return True if, while one growth went on, a number was reported, then none, then one again."""
    state, since = 0, math.nan
    for look, said in zip(looks, verdicts, strict=True):
        if said in (QUIET, OPEN) or look["since"] != since:
            state, since = 0, look["since"]
        if not look["true"]:
            continue
        reported = look["rate"] is not None
        state = (
            1
            if state == 0 and reported
            else 2
            if state == 1 and not reported
            else 3
            if state == 2 and reported
            else state
        )
        if state == 3:
            return True
    return False


def _falls(looks: list[Record]) -> int:
    """Return how often the count of layers fell within a segment."""
    falls, last, segment = 0, math.nan, -1
    for look in looks:
        if look["segments"] != segment:
            last, segment = math.nan, look["segments"]
        if look["layers"] is not None:
            falls += look["layers"] < last - 0.05
            last = look["layers"]
    return falls


def _longest_false(looks: list[Record], verdicts: list[str]) -> float:
    """Return the longest run of false numbers in periods (of the true rate, if layers grow)."""
    longest, began = 0.0, math.nan
    for i, (look, said) in enumerate(zip(looks, verdicts, strict=True)):
        if said != FALSE:
            began = math.nan
            continue
        until = looks[i + 1]["t"] if i + 1 < len(looks) else look["t"]
        began = look["t"] if math.isnan(began) else began
        longest = max(longest, (until - began) * (look["true"] or look["rate"]))
    return longest


def _score_stop(record: Record, out: FilmScore) -> None:
    """Score the last stop of the growth: periods until no rate is reported, error of the count at the end."""
    if not record["jumps"] or record["jumps"][-1][2] > 0 or not record["looks"]:
        return
    at, rate, _ = record["jumps"][-1]
    last = record["looks"][-1]
    if last["t"] < at + 3 / rate:
        return
    late = [look["t"] for look in record["looks"] if look["t"] > at and look["rate"] is not None]
    out.stop_periods = (late[-1] - at) * rate if late else 0.0
    if record["marked"]:
        first = record["segments"][0]["counted"] if record["segments"] else None
        out.stop_error = math.inf if first is None else first - record["grown"]
    else:
        out.stop_error = layers_error(last, "counted")
        out.stop_error = math.inf if math.isnan(out.stop_error) else out.stop_error


def _score_checks(record: Record, out: FilmScore) -> None:
    """Compare with the simple methods at the checks."""
    for check in record["checks"]:
        before = [look for look in record["looks"] if look["t"] <= check["t"] + 1e-3]
        ours = bool(before) and verdict(before[-1], record["slack"]) in (RIGHT, NAMED)
        tolerance = max(TOLERANCE, record["slack"]) * check["true"]
        theirs = any(
            all(abs(answer - check["true"]) <= tolerance for answer in check[name])
            for name in ("fft", "sine")
        )
        out.baseline_right += theirs
        out.both_right += theirs and ours
        out.only_we += ours and not theirs


def _summary_false(record: Record) -> bool:
    """Return True if the table of segments holds a rate that was never true within the film, by more than 5 %."""
    rates = [look["true"] for look in record["looks"] if look["true"]]
    low, high = (min(rates), max(rates)) if rates else (0.0, 0.0)
    reported = [(s["rate"], s["sigma"] or 0.0) for s in record["segments"] if s["rate"]]
    return any(r < low - max(0.05 * low, 3 * s) or r > high + max(0.05 * high, 3 * s) for r, s in reported)


def quantile(values: list[float], share: float) -> float:
    """Return a quantile; infinite values count as large ones, NaN are left out, NaN if none is left."""
    ranked = sorted(v for v in values if not math.isnan(v))
    return float(ranked[min(len(ranked) - 1, int(share * len(ranked)))]) if ranked else math.nan


def within(pulls: list[float], sigmas: float) -> float:
    """Return the percentage of pulls up to ``sigmas``."""
    return 100 * float(np.mean(np.array(pulls) <= sigmas)) if pulls else math.nan
