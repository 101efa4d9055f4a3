"""Light that goes out so slowly that no step is seen, such as an electron gun whose emission is turned down.

The pictures with which the tracker of the illumination compares fade with the light. So the last bright ones are kept
here, and the light is compared with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atomstream.results import F32

OUT = 0.05
"""Below this share of the bright picture's contrast the light is off."""

STILL_BRIGHT = 0.97
RENEWED_S = 3.0
"""Pictures with at least this share of the bright picture's contrast replace the stored bright pictures once these are
older than this time (s). Fades are faster than that."""

FADED = 0.9
"""Light below this share has begun to fade. If it then goes out, the stored bright pictures become the reference
again."""

SETTLED_S = 1.0
"""Time in s after which the first pictures are averaged well enough."""

LONGEST_FADE_S = 60.0
"""Light that stays weaker for longer than this time (s), without going out, becomes the new usual light: a film that
roughens loses its spots in minutes."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class BrightPictures:
    """Pictures (P,) of steady light: mean of the newest, slow mean, variance about it. ``gain``: level of the light."""

    steady: F32
    reference: F32
    variance: F32
    gain: float


@dataclass(slots=True)
class FadeDetector:
    """Detects light that goes out slowly, by comparison with the last ``bright`` pictures, taken at ``seen_s`` (s).

    ``began_s`` is the time of the first picture (s).
    """

    bright: BrightPictures | None = None
    seen_s: float = -math.inf
    began_s: float = math.nan

    def feed(self, now: BrightPictures, time_s: float, share: float | None) -> bool:
        """Compare the pictures ``now`` at ``time_s`` (s) with the bright ones; return True if the light is out.

        ``share`` is the ratio of their contrasts, None if it is not known. A film that becomes amorphous loses the
        contrast of its spots, but not the diffuse light.
        """
        self.began_s = time_s if math.isnan(self.began_s) else self.began_s
        if time_s < self.began_s + SETTLED_S:
            return False
        age_s = time_s - self.seen_s
        if self.bright is None or share is None:
            is_usual = self.bright is None
        else:
            is_usual = share > STILL_BRIGHT and age_s > RENEWED_S
        if is_usual or age_s > LONGEST_FADE_S:
            self.bright, self.seen_s = now, time_s
            return False
        return self.is_out(now.steady, share)

    def is_out(self, picture: F32, share: float | None) -> bool:
        """Return True if a picture with this share of the bright one's contrast was taken without light."""
        if self.bright is None or share is None:
            return False
        return share < OUT and _is_black(picture, self.bright.steady)


def _is_black(picture: F32, bright: F32) -> bool:
    """Return True if a picture is about as dark as the darkest pixels of the ``bright`` one."""
    black = float(np.percentile(bright, 5))
    return float(np.median(picture)) < black + 0.2 * max(0.0, float(bright.mean()) - black)
