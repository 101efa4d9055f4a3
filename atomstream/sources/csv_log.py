"""Signals from a CSV log, also one that a program is still appending to.

The layout is detected from the text. What can't be detected is an error that names the option for it:
separator, decimal comma, header, units in the header (``T (°C)``, ``p [mbar]``), the column of the times, and the form
of the times. An incomplete last line is read after its line break has been written.
"""

from __future__ import annotations

import codecs
import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError

from .csv_times import CsvOptions, LogTimes
from .times import unit_seconds

_TIME_NAME: Final = re.compile(r"(?i)^(date.?time|time.?stamp|datum|date|zeit|time|unix.*|epoch.*|t)\b")
_UNIT: Final = re.compile(
    r"^(?P<name>.*\S)\s*(?:\((?P<a>[^()]{1,32})\)|\[(?P<b>[^\[\]]{1,32})\]| / (?P<c>\S{1,32}))$"
)
_TIME_UNIT: Final = re.compile(r"(?<=[\w)])[\s_/.-]+([a-zA-Zµμ]+)$")
_COMMA: Final = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?$")
_WORDS: Final = {"open": 1.0, "on": 1.0, "true": 1.0, "yes": 1.0, "closed": 0.0, "close": 0.0, "off": 0.0}
_WORDS_NO: Final = {"false": 0.0, "no": 0.0}
_MISSING: Final = re.compile(r"(?i)(-*|#?n/?a|nan|null|none)$")
"""What loggers write in place of a value that they do not have."""
MAX_HEADER_LINES: Final = 100


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a log: ``times`` (N,) in s since 1970, and N values of each channel; NaN means no value."""

    times: list[float]
    values: dict[str, list[float]]


class CsvLog:
    """A CSV log. :meth:`read` returns the rows that were added since the last call.

    ``channels`` are the channels with their units (None: not stated), known after the first row. ``notes`` are
    sentences about what was left out, each once. A file that became shorter, or was replaced, is read from its start
    again.

    Raises:
        ConfigError: it is not a table of numbers, or its times can't be understood; the message names the option.
    """

    def __init__(self, path: Path, options: CsvOptions | None = None) -> None:
        self.path = path
        self.options = options or CsvOptions()
        self.channels: dict[str, str | None] = {}
        self.notes: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._place = 0
        self._inode = -1
        self._decoder: codecs.IncrementalDecoder | None = None
        self._rest = ""
        self._line = 0
        self._before: list[str] = []
        self._header: list[str] | None = None
        self._delimiter = self.options.delimiter or ""
        self._time_columns: list[int] = []
        self._picked: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._times = LogTimes(self.path, self.options)

    def read(self, *, complete: bool = False) -> Rows:
        """Return the new rows. With ``complete``, a last line without a line break counts as complete.

        Raises:
            ConfigError: see the class. OSError: from the disk; a file that is missing at the moment gives no rows once
                it was read.
        """
        rows = Rows([], {name: [] for name in self.channels})
        for line in self._new_lines(complete):
            self._line += 1
            if line.strip():
                self._take(line, rows)
        if complete and self._header is None and self._before:
            raise self._no_table()
        return Rows(
            rows.times, {name: values for name, values in rows.values.items() if name in self.channels}
        )

    def _new_lines(self, complete: bool) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                status = file.seek(0, 2), _inode(self.path)
                if self._inode not in (-1, status[1]) or status[0] < self._place:
                    self._note(
                        "the file begins again: it was replaced or became shorter. It is read from its start."
                    )
                    self._reset()
                self._inode = status[1]
                file.seek(self._place)
                data = file.read()
        except FileNotFoundError:
            if self._inode == -1:
                raise
            return
        self._place += len(data)
        text = self._rest + self._decoded(data)
        *lines, self._rest = re.split(r"\r\n|\n|\r(?!$)", text)
        if complete and self._rest:
            lines.append(self._rest)
            self._rest = ""
        yield from lines

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            encoding = "utf-8-sig"
            if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                encoding = "utf-16"
            else:
                try:
                    codecs.getincrementaldecoder("utf-8")().decode(data)
                except UnicodeDecodeError:
                    encoding = "cp1252"
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        return self._decoder.decode(data)

    # -- the header --------------------------------------------------------------------------------------

    def _take(self, line: str, rows: Rows) -> None:
        if self._header is None and not self._is_header(line):
            return
        for name in self.channels:
            rows.values.setdefault(name, [])
        self._add(line, rows)

    def _is_header(self, line: str) -> bool:
        """Whether the line before this one is the header: names, followed by a line with as many times and numbers."""
        delimiter = self.options.delimiter or _delimiter(line)
        fields = _fields(line, delimiter)
        numbers = sum(math.isfinite(_number(one, delimiter)) for one in fields[1:])
        above = _fields(self._before[-1], delimiter) if self._before else []
        if any(_TIME_NAME.match(name.strip().lstrip("#").strip()) for name in above):
            numbers += sum(bool(_MISSING.match(one.strip())) for one in fields[1:])
        if not (
            numbers and len(fields) >= 2 and len(above) >= len(fields) - 1 and not _is_row(above, delimiter)
        ):
            self._before.append(line)
            if len(self._before) > MAX_HEADER_LINES:
                raise self._no_table()
            return False
        self._delimiter = delimiter
        self._header = [one.strip().lstrip("#").strip() for one in above]
        self._header += [f"column {k + 1}" for k in range(len(self._header), len(fields))]
        self._find_time_columns(self._header)
        self._pick(self._header, fields)
        return True

    def _no_table(self) -> ConfigError:
        return ConfigError(
            f"{self.path} is not a table of signals: no line with names, followed by lines of a time and numbers, "
            f"is in its first {len(self._before)} lines. State the separator with --delimiter."
        )

    def _find_time_columns(self, header: Sequence[str]) -> None:
        self._time_columns = self._find_times(header)
        self._times.unit_s = _unit_of_time(header[self._time_columns[0]]) if header else None

    def _find_times(self, header: Sequence[str]) -> list[int]:
        wanted = self.options.time_column
        if wanted is not None:
            places = [k for k, name in enumerate(header) if wanted in (name, _name_and_unit(name)[0])]
            if not places:
                raise ConfigError(
                    f"{self.path} has no column {wanted!r}; it has {', '.join(map(repr, header))}."
                )
            return places[:1]
        found = [k for k, name in enumerate(header) if _TIME_NAME.match(name)]
        names = [header[k].lower() for k in found[:2]]
        two = (
            len(found) > 1
            and re.match(r"(date|datum)(?!.?time)", names[0])
            and re.match(r"time|zeit", names[1])
        )
        return found[:2] if two else found[:1] or [0]

    def _pick(self, header: Sequence[str], first: Sequence[str]) -> None:
        self._picked, self._texts = {}, {}
        wanted = set(self.options.channels)
        channels: dict[str, str | None] = {}
        for place, text in enumerate(header):
            name, unit = _name_and_unit(text)
            if place in self._time_columns or (wanted and not wanted & {name, text}):
                continue
            value = (first[place] if place < len(first) else "").strip()
            name = name or f"column {place + 1}"
            while name in channels or name in self._texts.values():
                name += " 2"
            if math.isnan(_number(value, self._delimiter)) and not _MISSING.match(value):
                self._note(f"the column {text!r} holds text such as {value[:40]!r} and is left out.")
                self._texts[place] = name
                continue
            channels[name] = self.options.units.get(name, unit)
            self._picked[place] = name
        missing = wanted - set(channels) - set(header)
        if missing or not channels:
            raise ConfigError(
                f"{self.path} has no channel {', '.join(map(repr, sorted(missing)))}; its columns are "
                f"{', '.join(map(repr, header))}."
                if missing
                else f"{self.path} has no column of numbers."
            )
        self.channels = channels

    # -- rows --------------------------------------------------------------------------------------------

    def _add(self, line: str, rows: Rows) -> None:
        fields = _fields(line, self._delimiter)
        if self._header is None or len(fields) <= max(self._time_columns):
            self._note(
                f"line {self._line} has fewer columns than the header and is left out, as are others like it."
            )
            return
        text = " ".join(fields[k].strip() for k in self._time_columns)
        time_s = self._time(text, fields)
        if time_s is None:
            return
        rows.times.append(time_s)
        for name in self.channels.keys() - set(self._picked.values()):
            rows.values[name].append(math.nan)
        self._take_late(fields, rows)
        for place, name in self._picked.items():
            given = fields[place] if place < len(fields) else ""
            value = _number(given, self._delimiter)
            if math.isnan(value) and not _MISSING.match(given.strip()):
                self._note(
                    f"line {self._line}: {given.strip()[:40]!r} of {name!r} is not a number and counts as no value."
                )
            rows.values[name].append(value)

    def _take_late(self, fields: Sequence[str], rows: Rows) -> None:
        """Take a column that held text so far and has a number now: an instrument that was off, or out of range."""
        for place, name in tuple(self._texts.items()):
            if place < len(fields) and math.isfinite(_number(fields[place], self._delimiter)):
                del self._texts[place]
                unit = _name_and_unit((self._header or [])[place])[1]
                self.channels[name] = self.options.units.get(name, unit)
                self._picked[place] = name
                rows.values[name] = [math.nan] * (len(rows.times) - 1)
                self._note(f"line {self._line}: the column {name!r} has numbers from there on, and is read.")

    def _time(self, text: str, fields: list[str]) -> float | None:
        try:
            return self._times.seconds(text, _number(text, self._delimiter))
        except ConfigError:
            if self._is_new_header(fields):
                return None
            if self._line <= 2 + len(self._before):
                raise
            self._note(
                f"line {self._line}: {text[:40]!r} is not a time; the line is left out, as are others like it."
            )
            return None

    def _is_new_header(self, fields: list[str]) -> bool:
        """Whether a line between two rows is another header. A logger that is restarted writes one, and the order of
        its columns applies to the rows after it.
        """
        if len(fields) < 2 or _is_row(fields, self._delimiter):
            return False
        header = [one.strip().lstrip("#").strip() for one in fields]
        known = {_name_and_unit(name)[0] for name in self._header or ()}
        if not known & {_name_and_unit(name)[0] for name in header}:
            return False
        if header == self._header:
            return True
        names = [_name_and_unit(text)[0] for text in header]
        picked = {place: name for place, name in enumerate(names) if name in self.channels}
        missing = set(self.channels) - set(picked.values())
        self._note(
            f"line {self._line} is a header with other columns; from there on the columns are read in its order"
            + (f", and {', '.join(sorted(missing))} have no values" if missing else "")
            + ". Columns that the first header did not have are left out."
        )
        self._find_time_columns(header)
        self._header, self._picked, self._texts = header, picked, {}
        return True

    def _note(self, text: str) -> None:
        kind = re.sub(r"line \d+|'[^']*'", "", text)
        if all(re.sub(r"line \d+|'[^']*'", "", one) != kind for one in self.notes):
            self.notes.append(text)


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _delimiter(line: str) -> str:
    """The separator with the most columns; blanks if there is no other."""
    counts = {one: line.count(one) for one in ("\t", ";", ",", "|")}
    if counts[";"] and _COMMA.search(line.split(";")[-1].strip()):
        return ";"
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] else " "


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _number(text: str, delimiter: str) -> float:
    """The number in a field; NaN if it is not a number. Decimal commas count where commas do not separate."""
    plain = text.strip()
    if delimiter != "," and _COMMA.match(plain):
        plain = plain.replace(",", ".")
    try:
        return float(plain)
    except ValueError:
        return (_WORDS | _WORDS_NO).get(plain.lower(), math.nan)


def _is_row(fields: Sequence[str], delimiter: str) -> bool:
    return any(math.isfinite(_number(one, delimiter)) for one in fields)


def _unit_of_time(text: str) -> float | None:
    """Return the seconds of the unit in the name of a column of times, such as "Time (ms)", "t/min" or "elapsed_us"."""
    unit = _name_and_unit(text)[1]
    if unit is None and (last := _TIME_UNIT.search(text.strip())):
        unit = last[1]
    return unit_seconds(unit)


def _name_and_unit(text: str) -> tuple[str, str | None]:
    found = _UNIT.match(text)
    if found is None:
        return text, None
    return found["name"].strip(), (found["a"] or found["b"] or found["c"]).strip()
