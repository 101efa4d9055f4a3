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
"""Light of at least this share renews the bright pictures once they are so old (s). Fades are faster than that."""

FADED = 0.9
"""Light below this share has begun to fade: the bright pictures replace the newest ones once it is out."""

SETTLED_S = 1.0
"""Time in s after which the first pictures are averaged well enough."""

LONGEST_FADE_S = 60.0
"""Light that is weaker for longer than this time (s), and not out, is the usual light from then on: a film that
roughens loses its spots in minutes."""


@dataclass(frozen=True, slots=True, eq=False)
class BrightPictures:
    """Pictures (P,) of steady light: the newest ones, the slow mean, the variance about it. ``gain`` is the light's."""

    steady: F32
    reference: F32
    variance: F32
    gain: float


@dataclass(slots=True)
class FadeDetector:
    """Keeps the last ``bright`` pictures, of ``seen_s`` (s), and finds that the light has gone out since.

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
