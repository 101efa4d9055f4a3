"""Why a turning sample has no views, for the people who look for them."""

from __future__ import annotations

import math
from typing import Final

from atomstream.analysis.rotation import BINS

NEEDED: Final = 0.9
"""Share of the azimuth bins that must have been seen before the analysis looks for views."""


def why_no_views(fps: float, rpm: float, frames: int, n_views: int) -> str:
    """The reason, empty where there are views or nothing turns; ``frames`` were analysed so far."""
    if n_views or not rpm:
        return ""
    per_turn, least = 60.0 * fps / abs(rpm), math.ceil(NEEDED * BINS)
    if frames < per_turn:
        return f"after the first whole turn, which takes {60.0 / abs(rpm):.3g} s"
    if per_turn < least:
        slow = 60.0 * fps / least
        return (
            f"a turn has {per_turn:.3g} frames; to tell azimuths apart takes {least}: "
            f"turn at most at {slow:.3g} rpm, or film at {least * abs(rpm) / 60.0:.3g} fps"
        )
    return "no azimuth so far shows a pattern that is mirrored about the specular column"
