"""Views of a rotating sample: their history, their numbers over several analyses, and why there are none."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
import numpy as np

from atomstream.analysis.azimuth import MIN_FRAMES_PER_TURN, SAME_VIEW_DEG, angle_between_deg
from atomstream.results import Plain
from atomstream.server.live.messages import ViewRecord

ViewPoint: TypeAlias = Plain
"""A point of a :class:`ViewTrack`."""
MAX_TURNS: Final = 20_000
"""Turns of one view in memory, 1.5 MB: 22 h at 15 rpm. After that every second turn is removed."""
_FIELDS: Final = (
    *("frame", "time_s", "angle_deg", "confidence", "spacing_px", "spacing_sigma_px", "specular_intensity"),
    *("oscillation_period", "turns"),
)
_WHOLE: Final = frozenset({"frame", "turns"})


class ViewTrack:
    """The history of one view, a point for each turn, as an array of numbers.

    Measured: ten hours at 15 rpm with six views take 4 MB in this form, and 40 MB as maps.

    A point has ``frame``, ``time_s``, ``angle_deg``, ``confidence``, ``spacing_px``, ``spacing_sigma_px``,
    ``specular_intensity``, ``oscillation_period`` (s) and ``turns``; None if there is no number.
    """

    def __init__(self, raw: bytes = b"") -> None:
        self._numbers = array("d", raw)

    def __len__(self) -> int:
        return len(self._numbers) // len(_FIELDS)

    def __getitem__(self, index: int) -> ViewPoint:
        return _point(self._numbers, range(len(self))[index])

    def __iter__(self) -> Iterator[ViewPoint]:
        numbers = self._numbers  # points that are added or removed meanwhile do not matter
        return (_point(numbers, index) for index in range(len(numbers) // len(_FIELDS)))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the points take."""
        return len(self._numbers) * self._numbers.itemsize

    def raw(self) -> bytes:
        """All points, from which a :class:`ViewTrack` can be made again."""
        return self._numbers.tobytes()

    def add(self, view: ViewRecord, **more: float | None) -> None:
        """Add a view of a batch, with ``frame``, ``time_s`` and ``oscillation_period``. A turn is added once."""
        if len(self) and self[-1]["turns"] == view.turns:
            return
        spacing = view.spacing_px
        known: Plain = {
            **msgspec.structs.asdict(view),
            **more,
            "spacing_px": spacing.value,
            "spacing_sigma_px": spacing.sigma,
        }
        row = [float("nan") if known[name] is None else float(known[name]) for name in _FIELDS]
        self._numbers.extend(array("d", row))  # in one call: readers see complete points
        if len(self) > MAX_TURNS:  # an odd number: the first and the newest point stay
            rows = np.frombuffer(self._numbers.tobytes()).reshape(-1, len(_FIELDS))
            self._numbers = array("d", rows[::2].tobytes())


def _point(numbers: array[float], index: int) -> ViewPoint:
    row = numbers[index * len(_FIELDS) : (index + 1) * len(_FIELDS)]
    return {name: _read(name, number) for name, number in zip(_FIELDS, row, strict=True)}


def _read(name: str, number: float) -> float | int | None:
    if number != number:
        return None
    return int(number) if name in _WHOLE else number


def why_no_views(fps: float, rpm: float, frames: int, n_views: int) -> str:
    """The reason, empty if there are views or nothing rotates. ``frames`` is the number of analysed frames."""
    if n_views or not rpm:
        return ""
    per_turn, least = 60.0 * fps / abs(rpm), MIN_FRAMES_PER_TURN
    if frames < per_turn:
        return f"after the first whole turn, which takes {60.0 / abs(rpm):.3g} s"
    if per_turn < least:
        slow = 60.0 * fps / least
        return (
            f"a turn has {per_turn:.3g} frames; to distinguish azimuths, {least} are needed: "
            f"rotate at most at {slow:.3g} rpm, or record at {least * abs(rpm) / 60.0:.3g} fps"
        )
    return "no azimuth so far shows a pattern that is mirrored about the specular column"


def renumbered(views: list[ViewRecord], known: Mapping[int, float], next_number: int) -> list[ViewRecord]:
    """Views of another analysis of the same stream, by the numbers that their azimuths (deg) have in ``known``.

    Each analysis numbers its views from 0, but labels of the user belong to an azimuth. Views at other azimuths get
    numbers from ``next_number`` on.
    """
    pairs = sorted(
        (angle_between_deg(view.angle_deg, angle), index, number)
        for index, view in enumerate(views)
        if view.angle_deg is not None
        for number, angle in known.items()
    )
    found: dict[int, int] = {}
    for apart, index, number in pairs:
        if apart < SAME_VIEW_DEG and index not in found and number not in found.values():
            found[index] = number
    for index in range(len(views)):
        if index not in found:
            found[index], next_number = next_number, next_number + 1
    return [msgspec.structs.replace(view, view_id=found[index]) for index, view in enumerate(views)]
