"""A number with its uncertainty, or the word "undetermined" and why: what every result is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """One result: ``value`` and its standard uncertainty ``sigma`` in ``unit``, or None and a reason.

    ``why`` says why there is no number and what would help; it is empty where there is one. ``note`` is a caveat
    that a reader of the number has to know (saturation, a bound instead of a value).
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""

    @property
    def determined(self) -> bool:
        """Whether there is a number."""
        return self.value is not None

    def __float__(self) -> float:
        return math.nan if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is None:
            return f"undetermined: {self.why}"
        number = f"{self.value:.6g}" if not self.sigma else _with_sigma(self.value, self.sigma)
        note = f" ({self.note})" if self.note else ""
        return f"{number} {self.unit}".rstrip() + note


def undetermined(why: str, unit: str = "") -> Value:
    """Make the result that has no number, with the reason for people."""
    return Value(None, None, unit, why)


def measured(value: float, sigma: float | None, unit: str = "", note: str = "") -> Value:
    """Make a result, refusing numbers that are not finite."""
    if not math.isfinite(value):
        return undetermined("the computation gave no finite number", unit)
    kept = float(sigma) if sigma is not None and math.isfinite(sigma) else None
    return Value(float(value), kept, unit, "", note)


def _with_sigma(value: float, sigma: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(sigma))) if sigma > 0 else 6
    return f"{value:.{min(digits, 9)}f} ± {sigma:.{min(digits, 9)}f}"
