"""Errors in one part of the analysis: its values become undetermined, and all other parts go on.

An error here is a fault of this program. The log has the traceback, the user sees "internal error" instead of a number,
and the part is tried again with the next frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from atomstream.results import Measurement, undetermined
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.analysis")

Part: TypeAlias = Literal["light", "growth rate", "streaks", "changes", "rotation"]

GROWTH_VALUES = (
    *("growth_rate_ml_s", "growth_rate_nm_s", "oscillation_period", "damping_layers"),
    *("oscillations_counted", "layers_grown", "cycles_seen", "oscillation_r2", "pulse_rate_hz"),
)
STREAK_VALUES = (
    *("lattice_spacing", "relative_spacing_change", "referenced_strain", "lattice_parameter", "spottiness"),
    *("specular_fwhm_1", "first_order_fwhm_1", "coherence_length"),
    *("half_order_ratio", "order_1_3_ratio", "order_1_4_ratio", "order_1_7_ratio"),
)
VALUES_OF: dict[Part, tuple[str, ...]] = {
    "light": GROWTH_VALUES,
    "growth rate": GROWTH_VALUES,
    "streaks": STREAK_VALUES,
    "changes": ("change_score",),
    "rotation": ("rotation_rpm", *GROWTH_VALUES),
}
"""Names of the scalar results that depend on each part."""


@dataclass(slots=True)
class Failures:
    """Parts of the analysis whose last step raised an error, with the reason for the user by part."""

    reasons: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def contained(self, part: Part, time_s: float) -> Iterator[None]:
        """Run a step of ``part`` for the frames up to ``time_s`` (s); an error becomes a reason and a log line."""
        try:
            yield
        except Exception as error:
            reason = (
                f"internal error in the analysis ({part}: {type(error).__name__}); the log has the details"
            )
            if self.reasons.get(part) != reason:
                log.exception(
                    "analysis: an error in the part '%s' at %.1f s; its values are undetermined, the others continue",
                    part,
                    time_s,
                )
            self.reasons[part] = reason
        else:
            self.reasons.pop(part, None)

    def apply(self, values: dict[str, Measurement]) -> dict[str, Measurement]:
        """Return ``values`` with those of failed parts undetermined."""
        for part, names in VALUES_OF.items():
            if part in self.reasons:
                values |= {
                    name: undetermined(self.reasons[part], values[name].unit)
                    for name in names
                    if name in values
                }
        return values
