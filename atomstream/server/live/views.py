"""Views of a turning sample: which is which over all analyses of a stream, and why there are none."""

from __future__ import annotations

from collections.abc import Mapping

from atomstream.analysis.azimuths import LEAST_PER_TURN, SAME_DEG, apart_deg
from atomstream.server.live.plain import Plain


def why_no_views(fps: float, rpm: float, frames: int, n_views: int) -> str:
    """The reason, empty where there are views or nothing turns; ``frames`` were analysed so far."""
    if n_views or not rpm:
        return ""
    per_turn, least = 60.0 * fps / abs(rpm), LEAST_PER_TURN
    if frames < per_turn:
        return f"after the first whole turn, which takes {60.0 / abs(rpm):.3g} s"
    if per_turn < least:
        slow = 60.0 * fps / least
        return (
            f"a turn has {per_turn:.3g} frames; to tell azimuths apart takes {least}: "
            f"turn at most at {slow:.3g} rpm, or film at {least * abs(rpm) / 60.0:.3g} fps"
        )
    return "no azimuth so far shows a pattern that is mirrored about the specular column"


def renumbered(views: list[Plain], known: Mapping[int, float], fresh: int) -> list[Plain]:
    """Views of another analysis of the same stream, by the numbers that their azimuths (deg) have in ``known``.

    Another analysis counts its views anew; what people said of one, they said of its azimuth. Others get numbers from
    ``fresh`` on.
    """
    pairs = sorted(
        (apart_deg(view["angle_deg"], angle), place, number)
        for place, view in enumerate(views)
        for number, angle in known.items()
    )
    found: dict[int, int] = {}
    for apart, place, number in pairs:
        if apart < SAME_DEG and place not in found and number not in found.values():
            found[place] = number
    for place in range(len(views)):
        if place not in found:
            found[place], fresh = fresh, fresh + 1
    return [{**view, "view_id": found[place]} for place, view in enumerate(views)]
