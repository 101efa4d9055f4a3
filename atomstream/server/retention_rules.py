"""The rules of retention: how long the frames of which streams are kept. Read from ``[retention]`` of the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from atomstream.errors import ConfigError

GB: Final = 1e9
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")

_Days = Annotated[float, msgspec.Meta(ge=0, le=100_000)]
_Gigabytes = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class RetentionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to the frames of streams in ``project`` (its name; None: any) that are ``larger_than_gb``.

    All frames are kept for ``whole_days`` after the newest one. Then one in ``keep_every`` is kept, and all within
    ``around_s`` seconds of an event or mark. ``delete_days`` after the newest frame the others are removed too. While
    the streams of this rule have more than ``quota_gb`` together, the oldest are thinned and then emptied earlier.
    """

    project: str | None = None
    larger_than_gb: _Gigabytes = 0.0
    whole_days: _Days | None = None
    keep_every: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] | None = None
    around_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 2.0
    delete_days: _Days | None = None
    quota_gb: _Gigabytes | None = None

    def check(self) -> None:
        """Raise ValueError for an invalid rule."""
        if (self.whole_days is None) != (self.keep_every is None) and self.quota_gb is None:
            raise ValueError(
                "whole_days and keep_every belong together: after whole_days days, one frame in keep_every is kept"
            )
        if self.whole_days is not None and self.keep_every is None:
            raise ValueError("whole_days needs keep_every: after that time one frame in keep_every is kept")
        if self.whole_days is None and self.delete_days is None and self.quota_gb is None:
            raise ValueError("it does nothing: give whole_days and keep_every, delete_days or quota_gb")
        if (
            self.delete_days is not None
            and self.whole_days is not None
            and self.delete_days <= self.whole_days
        ):
            raise ValueError("delete_days must be more than whole_days")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: list[RetentionRule] = []
    quota_gb: _Gigabytes | None = None
    spare_days: _Days = 1.0
    daily_at: str = "03:00"


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """All ``rules``, of which the first that fits a stream counts; run every day at ``daily_at`` (local time, HH:MM).

    ``quota_gb`` is for all streams together. For a quota, no stream is changed whose newest frame is younger than
    ``spare_days``.
    """

    rules: tuple[RetentionRule, ...] = ()
    quota_gb: float | None = None
    spare_days: float = 1.0
    daily_at: str = "03:00"

    @classmethod
    def parse(cls, table: Mapping[str, Any], where: str = "retention") -> RetentionSettings:
        """The settings in a TOML table; raises ConfigError, which names the rule."""
        try:
            read = msgspec.convert(table, _Table)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}: {error}.") from None
        for number, rule in enumerate(read.rules, start=1):
            try:
                rule.check()
            except ValueError as error:
                raise ConfigError(f"{where}: rule {number}: {error}.") from None
        if not _TIME.fullmatch(read.daily_at):
            raise ConfigError(f"{where}: daily_at={read.daily_at!r} is not a time of the day such as 03:00.")
        return cls(tuple(read.rules), read.quota_gb, read.spare_days, read.daily_at)

    def rule_for(self, project: str | None, nbytes: int) -> RetentionRule | None:
        """The first rule that fits a stream of this project and size."""
        for rule in self.rules:
            if rule.project not in (None, project):
                continue
            if nbytes >= rule.larger_than_gb * GB:
                return rule
        return None
