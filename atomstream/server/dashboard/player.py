"""Which frame to show next: the newest, but a chunk of two seconds is played, not jumped over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atomstream.server.dashboard.decimate import F64

PICTURE_S = 0.1
"""Ten pictures a second are a film to the eye; more would only cost."""


@dataclass(slots=True)
class Player:
    """Goes along a stream at its own pace, behind its growing end by as much as one chunk.

    Where the end is further ahead (a backlog that came in at once), it jumps after it.
    """

    fps: float
    chunk_size: int
    place: float = -1.0
    asked_at: float = 0.0

    def next(self, now_s: float, n_frames: int) -> int:
        """The frame to show at ``now_s`` (monotonic) of ``n_frames`` stored ones; -1 where there is none."""
        newest = n_frames - 1.0
        if self.place < 0 or newest < 0:
            self.place = newest
        else:
            self.place = min(newest, self.place + self.fps * (now_s - self.asked_at))
        if newest - self.place > max(1.5 * self.chunk_size, 0.5 * self.fps):
            self.place = max(0.0, newest - self.chunk_size)
        self.asked_at = now_s
        return int(self.place)


def frame_at_azimuth(upto: int, angle_deg: float, angles_deg: F64, frames_per_turn: float) -> int:
    """The last frame, not after ``upto``, that shows the azimuth ``angle_deg``: the picture stands still.

    ``angles_deg`` (n,) are the measured azimuths of the n frames up to and with ``upto``; where they do not
    cover a turn, the azimuth is nominal: frame 0 is at 0 degrees, and a turn takes ``frames_per_turn``.
    """
    recent = angles_deg[-math.ceil(frames_per_turn) :] if frames_per_turn >= 1 else angles_deg[-1:]
    if len(recent) >= frames_per_turn and np.isfinite(recent).all():
        off = np.abs((recent - angle_deg + 180.0) % 360.0 - 180.0)
        return int(upto - len(recent) + 1 + int(np.argmin(off)))
    phase = angle_deg / 360.0 % 1.0
    turns = math.floor(upto / frames_per_turn - phase)
    return max(0, min(upto, round((turns + phase) * frames_per_turn)))
