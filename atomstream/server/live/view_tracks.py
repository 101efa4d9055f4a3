"""Views of a turning sample: which is which over all analyses of a stream, and why there are none."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from atomstream.analysis.rotation import MIN_FRAMES_PER_TURN, SAME_VIEW_DEG, angle_between_deg
from atomstream.results import Plain

MAX_TURNS: Final = 20_000
"""Turns of one view that are kept at hand, 1.5 MB: 22 h at 15 rpm. Then every second one goes."""
_FIELDS: Final = (
    *("frame", "time_s", "angle_deg", "confidence", "spacing_px", "spacing_sigma_px", "specular_intensity"),
    *("oscillation_period", "turns"),
)
_WHOLE: Final = frozenset({"frame", "turns"})


class ViewTrack:
    """What was measured of one view, a point a turn, as plain numbers.

    Ten hours at 15 rpm with six views take 4 MB so, and took 40 MB as maps.

    A point has ``frame``, ``time_s``, ``angle_deg``, ``confidence``, ``spacing_px``, ``spacing_sigma_px``,
    ``specular_intensity``, ``oscillation_period`` (s) and ``turns``; None where there is no number.
    """

    def __init__(self, raw: bytes = b"") -> None:
        self._numbers = array("d", raw)

    def __len__(self) -> int:
        return len(self._numbers) // len(_FIELDS)

    def __getitem__(self, place: int) -> Plain:
        return _point(self._numbers, range(len(self))[place])

    def __iter__(self) -> Iterator[Plain]:
        numbers = self._numbers  # the same ones to the end, whatever is added or thinned meanwhile
        return (_point(numbers, place) for place in range(len(numbers) // len(_FIELDS)))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the points take."""
        return len(self._numbers) * self._numbers.itemsize

    def raw(self) -> bytes:
        """All points, for a :class:`ViewTrack` to be made of again."""
        return self._numbers.tobytes()

    def add(self, view: Plain, **more: float | None) -> None:
        """Add a view as it is told, with ``frame``, ``time_s`` and ``oscillation_period``; once a turn counts."""
        if len(self) and self[-1]["turns"] == view["turns"]:
            return
        spacing = view["spacing_px"]
        known = {**view, **more, "spacing_px": spacing["value"], "spacing_sigma_px": spacing["sigma"]}
        row = [float("nan") if known[name] is None else float(known[name]) for name in _FIELDS]
        self._numbers.extend(array("d", row))  # at once: readers see whole points
        if len(self) > MAX_TURNS:  # an odd number: the first and the newest stay
            rows = np.frombuffer(self._numbers.tobytes()).reshape(-1, len(_FIELDS))
            self._numbers = array("d", rows[::2].tobytes())


def _point(numbers: array[float], place: int) -> Plain:
    row = numbers[place * len(_FIELDS) : (place + 1) * len(_FIELDS)]
    return {name: _read(name, number) for name, number in zip(_FIELDS, row, strict=True)}


def _read(name: str, number: float) -> float | int | None:
    if number != number:
        return None
    return int(number) if name in _WHOLE else number


def why_no_views(fps: float, rpm: float, frames: int, n_views: int) -> str:
    """The reason, empty where there are views or nothing turns; ``frames`` were analysed so far."""
    if n_views or not rpm:
        return ""
    per_turn, least = 60.0 * fps / abs(rpm), MIN_FRAMES_PER_TURN
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
        (angle_between_deg(view["angle_deg"], angle), place, number)
        for place, view in enumerate(views)
        for number, angle in known.items()
    )
    found: dict[int, int] = {}
    for apart, place, number in pairs:
        if apart < SAME_VIEW_DEG and place not in found and number not in found.values():
            found[place] = number
    for place in range(len(views)):
        if place not in found:
            found[place], fresh = fresh, fresh + 1
    return [{**view, "view_id": found[place]} for place, view in enumerate(views)]
