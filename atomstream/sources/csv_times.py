"""The times of a CSV log: numbers of seconds since an epoch, dates of several forms, times of day, summer time."""

from __future__ import annotations

import math
import time as clock
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError

_FORMATS: Final = (
    *("%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S"),
    *("%d-%b-%Y %H:%M:%S.%f", "%d-%b-%Y %H:%M:%S"),
)
_UNIX_UNITS: Final = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (3e8, 1.0))
"""From this number on a time counts ns, µs, ms or s since 1970; smaller ones are seconds since a start."""

_FUTURE_S: Final = 30 * 86400.0
"""Seconds by which a time may lie behind the present, for clocks that are wrong."""

_NO_YEAR: Final = 1900
"""Year that strptime gives to a form without one."""


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What a user states about a log; None: it is detected.

    ``start`` (s since 1970) is the zero of times in seconds since a start, and has the date of the first time of day.
    ``zone`` is the time zone of times that state none.
    """

    time_column: str | None = None
    time_format: str | None = None
    zone: tzinfo | None = None
    start: float | None = None
    delimiter: str | None = None
    channels: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)


class LogTimes:
    """Times of the lines of a log in their order, in s since 1970.

    Local times are unambiguous by that order: in the hour that a clock repeats at the end of summer time, and after
    midnight where a log has times of day alone.
    """

    def __init__(self, path: Path, options: CsvOptions) -> None:
        self._path = path
        self._options = options
        self._last: float | None = None
        self.unit_s: float | None = None
        """Seconds of one unit of a time that is a number, as the header states it; None: it does not."""

    def seconds(self, text: str, number: float) -> float:
        """Return the time that ``text`` states; ``number`` is its value if it is a number, else NaN.

        Raises:
            ConfigError: it can't be understood; the message names the option.
        """
        if math.isfinite(number) and self._options.time_format is None and number >= 0.0:
            found = self._counted(text, number)
        else:
            found = self._dated(text)
        self._last = found
        return found

    def _counted(self, text: str, number: float) -> float:
        if self.unit_s is not None and self.unit_s != 1.0:
            return self._from(text, number * self.unit_s)
        for least, per_second in _UNIX_UNITS:
            if number < least:
                continue
            found = number / per_second
            if found <= clock.time() + _FUTURE_S:
                return found
            break
        return self._from(text, number)

    def _from(self, text: str, seconds: float) -> float:
        """Return the time of seconds since 1970, or, if they are too few or too many for that, since the start."""
        since_1970 = seconds >= _UNIX_UNITS[-1][0]
        if since_1970 and seconds <= clock.time() + _FUTURE_S:
            return seconds
        if self._options.start is not None:
            return self._options.start + seconds
        if since_1970:
            raise ConfigError(
                f"{self._path}: the time {text!r} counted from 1970 lies in the future. If it counts seconds from "
                "another moment, state that with --start, such as --start 1904-01-01T00:00:00Z for LabVIEW."
            )
        raise ConfigError(
            f"{self._path}: the times, such as {text!r}, count from a start. State it with --start, such as "
            "--start 2026-11-30T09:00:00."
        )

    def _dated(self, text: str) -> float:
        plain = text.replace(",", ".")
        found = self._parsed(plain)
        if isinstance(found, time):
            return self._of_day(text, found)
        if found is None:
            raise ConfigError(
                f"{self._path}: the time {text[:60]!r} can't be understood. State its form with --time-format, such as "
                "--time-format '%m/%d/%Y %I:%M:%S %p', and its column with --time-column."
            )
        return self._stamp(found)

    def _parsed(self, plain: str) -> datetime | time | None:
        stated = self._options.time_format
        if stated is None:
            for parse in (datetime.fromisoformat, time.fromisoformat):
                try:
                    return parse(plain)
                except ValueError:
                    continue
        for form in _FORMATS if stated is None else (stated,):
            try:
                found = datetime.strptime(plain, form)
            except ValueError:
                continue
            return found.timetz() if found.year == _NO_YEAR else found
        return None

    def _of_day(self, text: str, found: time) -> float:
        """Return a time of day: at the date of the start, and later on of the last line or of the day after it."""
        known = self._options.start if self._last is None else self._last
        if known is None:
            raise ConfigError(
                f"{self._path}: the times, such as {text!r}, have no date. State it with --start, such as --start "
                "2026-11-30T00:00:00."
            )
        zone = found.tzinfo or self._options.zone
        day = datetime.fromtimestamp(known, zone).date()
        at = self._stamp(datetime.combine(day, found))
        if at < known - 43200.0:
            at = self._stamp(datetime.combine(day + timedelta(days=1), found))
        return at

    def _stamp(self, found: datetime) -> float:
        if found.tzinfo is None and self._options.zone is not None:
            found = found.replace(tzinfo=self._options.zone)
        at = found.astimezone(UTC).timestamp()
        if self._last is not None and at < self._last:
            again = found.replace(fold=1).astimezone(UTC).timestamp()
            if again >= self._last:  # the hour that is repeated at the end of summer time
                return again
        return at
