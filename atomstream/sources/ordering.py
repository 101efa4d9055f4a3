"""The order of files as people count: frame2 before frame10, T=-5 before T=5, 0.25 before 0.5.

A number is compared by its value. Whether ``-`` is a sign or separates words, and whether ``.`` is a decimal point,
is decided for all files together, because one name alone does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeAlias

_NUMBER: Final = re.compile(r"(?<!\d)-?\d+(?:\.\d+)*|\d+(?:\.\d+)*")
_TWELVE_HOURS: Final = re.compile(
    r"(?<!\d)(0?[1-9]|1[0-2])((?:[-_.: ]\d\d){1,2}(?:[.,]\d+)?)[-_ ]?([ap])\.?m(?![a-z])\.?"
)
"""A time of day with am or pm, of a name in small letters: 1-05-33 pm comes after 11-59-00 am."""
_Key: TypeAlias = tuple[tuple[Fraction, str], ...]


def ordered(paths: Sequence[Path], order: str = "name") -> list[Path]:
    """Return files in the order of their names, or of the last change (``mtime``; the same moment: by name).

    A hyphen before a number is a sign if other files have a number at the same place without it (T-5, T0, T5);
    otherwise it separates words (run-1, run-2). A point is decimal (0.5, 0.25) unless the numbers after it are
    counted: that is, if one file has the same number with another count of zeros at its end (1.1 and 1.10), or
    several points (1.2.3).
    """
    keys = dict(zip(paths, natural_keys([path.stem for path in paths]), strict=True))
    names = sorted(paths, key=lambda path: (keys[path], path.name))
    return sorted(names, key=lambda path: path.stat().st_mtime_ns) if order == "mtime" else names


def natural_keys(names: Sequence[str]) -> list[_Key]:
    """Return a key for each name; sorted by them, names are in the order of :func:`ordered`."""
    parts = [_split(name) for name in names]
    templates: dict[tuple[str, ...], list[list[str]]] = {}
    for words, numbers in parts:
        templates.setdefault(words, []).append(numbers)
    rules = {words: _rules(rows) for words, rows in templates.items()}
    return [_key(words, numbers, rules[words]) for words, numbers in parts]


def words_around(name: str) -> tuple[str, ...]:
    """Return the words around the numbers of a name: equal for names that differ in their numbers only."""
    return _split(name)[0]


def _key(words: tuple[str, ...], numbers: list[str], rules: list[tuple[bool, bool]]) -> _Key:
    key: list[tuple[Fraction, str]] = []
    for place, word in enumerate(words):
        if word or place == 0:
            key.append((Fraction(-(10**40)), word))
        if place < len(numbers):
            key.extend((value, "") for value in _values(numbers[place], *rules[place]))
    return tuple(key)


def _split(stem: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the words around the numbers of a name, and the numbers as they are written."""
    name = _TWELVE_HOURS.sub(_of_24_hours, stem.casefold())
    numbers = [match.group() for match in _NUMBER.finditer(name)]
    return tuple(_NUMBER.split(name)), numbers


def _of_24_hours(time: re.Match[str]) -> str:
    return f"{int(time[1]) % 12 + (12 if time[3] == 'p' else 0)}{time[2]}"


def _rules(rows: list[list[str]]) -> list[tuple[bool, bool]]:
    """Return for each number of names with the same words: is its hyphen a sign, is its point decimal."""
    rules = []
    for column in zip(*rows, strict=True):
        signed = any(not number.startswith("-") for number in column)
        plain = {number.lstrip("-") for number in column}
        values = [number.rstrip("0") for number in plain if number.count(".") == 1]
        decimal = all(number.count(".") <= 1 for number in plain) and len(set(values)) == len(values)
        rules.append((signed, decimal))
    return rules


def _values(number: str, signed: bool, decimal: bool) -> list[Fraction]:
    negative = signed and number.startswith("-")
    digits = number.lstrip("-")
    values = [Fraction(digits)] if decimal else [Fraction(part) for part in digits.split(".")]
    return [-value for value in values] if negative else values
