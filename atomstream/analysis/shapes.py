"""Shapes that are drawn on the picture: boxes whose intensity is measured, and lines for profiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomstream.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the picture: centre (x, y), width and height in px; a ``tracked`` box follows its spot.

    Raises ConfigError for a size below 1 px or a value that is not finite.
    """

    x: float
    y: float
    width: float
    height: float
    name: str = "box"
    tracked: bool = False

    def __post_init__(self) -> None:
        if (
            not all(map(math.isfinite, (self.x, self.y, self.width, self.height)))
            or min(self.width, self.height) < 1
        ):
            raise ConfigError(
                f"region {self.name!r}: a box needs a finite centre, width and height of at least 1 px"
            )

    def bounds(self, height: int, width: int, margin: int = 0) -> tuple[int, int, int, int]:
        """Return (y0, y1, x0, x1) of the box, enlarged by ``margin`` px and cut to the frame; never empty."""
        return (*_extent(self.y, self.height, margin, height), *_extent(self.x, self.width, margin, width))


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line (x0, y0)-(x1, y1) in px for a profile, averaged over ``width`` px (1-999) across it.

    Raises ConfigError for another width or ends that are not finite.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    name: str = "line"
    width: float = 1.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x0, self.y0, self.x1, self.y1))) or not 1 <= self.width <= 999:
            raise ConfigError(f"region {self.name!r}: a line needs finite ends and a width of 1 to 999 px")


Region = Box | Line


def _extent(centre: float, size: float, margin: int, limit: int) -> tuple[int, int]:
    first = round(centre - 0.5 * (size - 1)) - margin
    last = first + max(1, round(size)) + 2 * margin
    return max(0, min(first, limit - 1)), min(limit, max(last, 1))
