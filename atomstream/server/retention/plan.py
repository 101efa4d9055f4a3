"""Plan of a retention run: which streams the rules thin or empty, and why. Nothing is read or changed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from atomstream.server.archive.metadata import Thinning
from atomstream.server.retention_rules import GB, RetentionRule, RetentionSettings

DAY_S: Final = 86_400.0

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The input of the rules for one stream: ``age_s`` since its newest frame, ``nbytes`` of all its frames.

    ``busy`` is the reason why it must not be changed at present, empty if there is none.
    """

    data_id: str
    name: str
    project: str | None
    age_s: float
    n_frames: int
    nbytes: int
    busy: str = ""
    thinning: Thinning | None = None


class Action(msgspec.Struct, frozen=True):
    """What is to be done with one stream: keep one frame in ``every``, or none if it is 0. ``freed_bytes`` is an
    estimate before the run, and the true number after it.
    """

    data_id: str
    name: str
    project: str | None
    every: int
    around_s: float
    why: str
    nbytes: int
    freed_bytes: int = 0

    @property
    def sentence(self) -> str:
        """The action in words."""
        what = f"keep one frame in {self.every}" if self.every else "remove all frames"
        return f"{what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All actions in their order; ``skipped`` are (data_id, reason); ``over`` are sentences about exceeded quotas."""

    actions: tuple[Action, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    over: tuple[str, ...] = ()


def make_plan(streams: Iterable[StreamFacts], settings: RetentionSettings) -> Plan:
    """Apply the rules to all streams: first by age, then by quota, the oldest streams first."""
    planner = _Planner(settings, sorted(streams, key=lambda one: (-one.age_s, one.data_id)))
    planner.by_age()
    for rule in settings.rules:
        if rule.quota_gb is not None:
            name = f"the project {rule.project!r}" if rule.project is not None else "a rule for all projects"
            planner.by_quota(planner.under(rule), rule.quota_gb, name)
    if settings.quota_gb is not None:
        planner.by_quota(planner.under(None), settings.quota_gb, "the server")
    return planner.result()


class _Planner:
    def __init__(self, settings: RetentionSettings, streams: Sequence[StreamFacts]) -> None:
        self._settings = settings
        self._streams = streams
        self._actions: dict[str, Action] = {}
        self._skipped: dict[str, str] = {}
        self._over: list[str] = []

    def result(self) -> Plan:
        return Plan(tuple(self._actions.values()), tuple(self._skipped.items()), tuple(self._over))

    def rule_of(self, one: StreamFacts) -> RetentionRule | None:
        return self._settings.rule_for(one.project, one.nbytes)

    def under(self, rule: RetentionRule | None) -> list[StreamFacts]:
        """The streams that belong to a rule; all for None."""
        return [one for one in self._streams if rule is None or self.rule_of(one) is rule]

    def by_age(self) -> None:
        for one in self._streams:
            rule, days = self.rule_of(one), one.age_s / DAY_S
            if one.thinning is not None and not one.thinning.complete:
                self._add(
                    one, one.thinning.every, one.thinning.around_s, "an interrupted thinning is continued"
                )
            elif rule is None:
                continue
            elif rule.delete_days is not None and days >= rule.delete_days:
                self._add(one, 0, 0.0, f"its newest frame is {days:.0f} days old, of {rule.delete_days:g}")
            elif rule.whole_days is not None and rule.keep_every and days >= rule.whole_days:
                why = f"its newest frame is {days:.0f} days old, of {rule.whole_days:g}"
                self._add(one, rule.keep_every, rule.around_s, why)

    def by_quota(self, mine: Sequence[StreamFacts], quota_gb: float, whose: str) -> None:
        left = sum(one.nbytes - self._freed(one) for one in mine)
        total = left
        for every in (True, False):  # first thin all that may be, then empty the oldest
            for one in mine:
                if left <= quota_gb * GB:
                    return
                rule = self.rule_of(one)
                if every and (rule is None or rule.keep_every is None):
                    continue
                if one.age_s < self._settings.spare_days * DAY_S:
                    continue
                before = self._freed(one)
                why = f"{whose} has {total / GB:.1f} GB, of {quota_gb:g}"
                kept = rule.keep_every if every and rule is not None and rule.keep_every else 0
                self._add(one, kept, rule.around_s if every and rule is not None else 0.0, why)
                left -= self._freed(one) - before
        if left > quota_gb * GB:
            self._over.append(
                f"{whose[0].upper()}{whose[1:]} has {left / GB:.1f} GB of frames, of {quota_gb:g}; the rest is in use, "
                f"or younger than spare_days={self._settings.spare_days:g}."
            )

    def _freed(self, one: StreamFacts) -> int:
        planned = self._actions.get(one.data_id)
        return planned.freed_bytes if planned is not None else 0

    def _add(self, one: StreamFacts, every: int, around_s: float, why: str) -> None:
        planned = self._actions.get(one.data_id)
        if planned is not None and (planned.every == 0 or every == planned.every):
            return
        if one.nbytes == 0 or _is_done(one.thinning, every):
            return
        if one.busy:
            self._skipped[one.data_id] = one.busy
            return
        share = _share_left(every) / (_share_left(one.thinning.every) if one.thinning else 1.0)
        freed = round(one.nbytes * (1.0 - min(1.0, share)))
        self._actions[one.data_id] = Action(
            one.data_id, one.name, one.project, every, around_s, why, one.nbytes, freed
        )


def _share_left(every: int) -> float:
    return 1.0 / every if every else 0.0


def _is_done(thinning: Thinning | None, every: int) -> bool:
    """Whether a stream has no more frames than one in ``every`` already.

    One frame in 10 can be thinned to one in 20; thinned to one in 15, one in 30 would be left.
    """
    if thinning is None or not thinning.complete:
        return False
    if thinning.every == 0:
        return True
    return every != 0 and (every <= thinning.every or every % thinning.every != 0)


def frames_to_keep(
    first: int,
    times_s: npt.NDArray[np.float64],
    every: int,
    events_s: npt.NDArray[np.float64],
    around_s: float,
) -> Mask:
    """Which frames ``first`` .. are kept: one in ``every`` by its number, and those near an event; with 0 none.

    ``times_s`` (n,) are the frames' times, NaN if unknown; ``events_s`` are the times of all events, ascending.
    """
    if every == 0:
        return np.zeros(len(times_s), dtype=bool)
    kept = (first + np.arange(len(times_s))) % every == 0
    if len(events_s):
        after = np.searchsorted(events_s, times_s)  # NaN counts as later than all
        for neighbour in (after - 1, after):
            nearest = events_s[np.clip(neighbour, 0, len(events_s) - 1)]
            with np.errstate(invalid="ignore"):
                kept |= np.abs(times_s - nearest) <= around_s
    return np.asarray(kept, dtype=bool)


def replaced(action: Action, freed_bytes: int) -> Action:
    """A copy of the action with the bytes that became free."""
    return msgspec.structs.replace(action, freed_bytes=freed_bytes)
