"""What happened to a stream, on its time axis: marks of the user, steps of the light, gaps, changes."""

from __future__ import annotations

from dataclasses import dataclass

CUTTING_KINDS = frozenset({"shutter", "laser", "rotation", "growth", "pause"})
"""Kinds of marks that cut a growth into segments; a note does not."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: ``time_s`` from the stream's start, ``kind``, a ``label`` for people, ``value`` where it has one.

    Kinds that the analysis finds: ``exposure`` (value: factor of the light), ``dark``, ``light``, ``gap`` (value:
    frames), ``change`` (value: score), ``fractional_order``, ``rotation`` (value: rpm). The user's: ``shutter``,
    ``laser``, ``growth``, ``pause``, ``note`` or any other word.
    """

    time_s: float
    kind: str
    label: str = ""
    value: float | None = None

    @property
    def cuts(self) -> bool:
        """Whether a new segment begins here."""
        return self.kind in CUTTING_KINDS
