"""Errors in one step of the analysis: its values become undetermined, and all other steps go on.

An error here is a fault of this program. The log has the traceback, the user sees "internal error" instead of a number,
and the step is tried again with the next frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from atomstream.results import Measurement, undetermined
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.analysis")

Step: TypeAlias = Literal[
    "light", "spot choice", "growth rate", "streaks", "streak widths", "sudden changes", "changes", "rotation"
]
"""Name of a step of the analysis. Each step has its own name, so that a success of one does not clear another's
error."""

GROWTH_VALUES = (
    *("growth_rate_ml_s", "growth_rate_nm_s", "oscillation_period", "damping_layers"),
    *("oscillations_counted", "oscillations_since_mark", "layers_grown", "layers_total", "thickness_nm"),
    *("cycles_seen", "oscillation_r2", "pulse_rate_hz"),
)
STREAK_VALUES = (
    *("lattice_spacing", "relative_spacing_change", "relative_lattice_change", "referenced_strain"),
    *("lattice_parameter", "spottiness", "specular_fwhm_1", "first_order_fwhm_1", "coherence_length"),
    *("half_order_ratio", "order_1_3_ratio", "order_1_4_ratio", "order_1_7_ratio"),
)
VALUES_OF: dict[Step, tuple[str, ...]] = {
    "light": GROWTH_VALUES,
    "spot choice": GROWTH_VALUES,
    "growth rate": GROWTH_VALUES,
    "streaks": STREAK_VALUES,
    "streak widths": STREAK_VALUES,
    "sudden changes": ("change_score",),
    "changes": ("change_score",),
    "rotation": ("rotation_rpm", *GROWTH_VALUES),
}
"""Names of the scalar results that depend on each step."""


@dataclass(slots=True)
class Failures:
    """Steps of the analysis whose last run raised an error, with the reason for the user.

    ``counts`` are the numbers of errors in the whole stream by step and type of the error.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def contained(self, step: Step, time_s: float) -> Iterator[None]:
        """Run a ``step`` for the frames up to ``time_s`` (s); an error becomes a reason.

        The log has the traceback of the first error of each type, and the number of errors when it reaches 10, 100,
        1000 and so on.
        """
        try:
            yield
        except Exception as error:
            which = f"{step}: {type(error).__name__}"
            count = self.counts[which] = self.counts.get(which, 0) + 1
            if count == 1:
                log.exception(
                    "analysis: an error in the step '%s' at %.1f s; its values are undetermined, the others continue",
                    step,
                    time_s,
                )
            elif count == 10 ** round(math.log10(count)):
                log.error("analysis: %d errors in the step '%s' up to %.1f s", count, which, time_s)
            self.reasons[step] = f"internal error in the analysis ({which}); the log has the details"
        else:
            self.reasons.pop(step, None)

    def apply(self, values: dict[str, Measurement]) -> dict[str, Measurement]:
        """Return ``values`` with those of failed steps undetermined."""
        for step, names in VALUES_OF.items():
            if step in self.reasons:
                values |= {
                    name: undetermined(self.reasons[step], values[name].unit)
                    for name in names
                    if name in values
                }
        return values
