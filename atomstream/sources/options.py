"""What a caller states about a recording that the file itself does not state; all readers take the same options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from atomstream.checks import checked_items, checked_number, checked_text
from atomstream.errors import ConfigError

ORDERS: Final = ("name", "mtime")
VIDEO_RANGES: Final = ("auto", "full", "limited")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of :func:`open_source`, which documents them. Raises :class:`ConfigError` for wrong ones."""

    dataset: str | None = None
    axes: str | None = None
    channel: str | None = None
    levels: tuple[float, float] | None = None
    video_range: str = "auto"
    order: str = "name"
    time_unit: str | None = None
    ignore_times: bool = False
    skip_damaged: bool | None = None
    geometry: str | None = None
    growing: bool = False
    """A program is still writing the file (:mod:`.following`): an incomplete end is not damage."""

    def __post_init__(self) -> None:
        for name in ("dataset", "axes", "channel", "video_range", "order", "time_unit", "geometry"):
            if (value := getattr(self, name)) is not None:
                checked_text(name, value)
        _check_choice("order", self.order, ORDERS)
        _check_choice("video_range", self.video_range, VIDEO_RANGES)
        if self.levels is not None:
            low, high = checked_items("levels", self.levels, 2, "a pair (low, high)")
            low, high = checked_number("levels", low), checked_number("levels", high)
            if not (math.isfinite(low) and low < high < math.inf):
                raise ConfigError(
                    f"levels (--levels) are {low:g} {high:g}: LOW must be below HIGH, and both finite"
                )

    def refuse_geometry(self, name: str) -> None:
        """Raise ConfigError if a geometry is given, for a file that states its own."""
        if self.geometry is not None:
            raise ConfigError(f"{name} states its own geometry: leave out --geometry {self.geometry}")

    def refuse_dataset(self, name: str) -> None:
        """Raise ConfigError if a dataset is given, for a kind of file that has only one."""
        if self.dataset is not None:
            raise ConfigError(
                f"{name} contains a single sequence of frames; omit the dataset {self.dataset!r}"
            )


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
