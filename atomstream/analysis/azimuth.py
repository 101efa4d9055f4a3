"""Azimuths of a rotating sample: the angle between two azimuths, and the number of the view at an azimuth."""

from __future__ import annotations

from atomstream.results import View

MIN_FRAMES_PER_TURN = 60
"""Fewest frames per turn for the search of views: with fewer, azimuth bins of 2 degrees stay empty and views are
missed."""

SAME_VIEW_DEG = 6.0
"""Two azimuths that differ by less than this, in degrees, count as the same view."""


def matching_view(angle_deg: float, known: dict[int, View], used: set[int]) -> int | None:
    """Return the number of the nearest ``known`` view within 6 degrees that is not ``used``; None for a new view."""
    near = [
        (angle_between_deg(view.angle_deg, angle_deg), number)
        for number, view in known.items()
        if number not in used
    ]
    distance, number = min(near, default=(SAME_VIEW_DEG, -1))
    return number if distance < SAME_VIEW_DEG else None


def angle_between_deg(one: float, other: float) -> float:
    """Return the angle between two azimuths (deg), 0 to 180."""
    return abs((one - other + 180.0) % 360.0 - 180.0)
