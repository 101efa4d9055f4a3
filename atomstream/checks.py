"""Checks of arguments: numbers in a range, strings, paths. A wrong type is a TypeError that names the argument."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from atomstream.errors import ConfigError


def checked_number(name: str, value: float) -> float:
    """Return ``value`` as a float, which may be NaN or infinite.

    Raises:
        TypeError: not a number.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
    try:
        return float(value)
    except (TypeError, ValueError):  # an array of several numbers
        raise TypeError(f"{name} must be one number, not {type(value).__name__}.") from None


def number_in_range(name: str, value: float, low: float, high: float, unit: str = "") -> float:
    """Return ``value`` as a float if it is in [low, high].

    Raises:
        TypeError: not a number. ConfigError: not a number in that range.
    """
    number = checked_number(name, value)
    if math.isnan(number) or not low <= number <= high:
        allowed = f"{low:g} .. {high:g} {unit}".rstrip()
        raise ConfigError(f"{name}={value!r} is out of range: it must lie in {allowed}.")
    return number


def integer_in_range(name: str, value: int, low: int, high: int) -> int:
    """Return ``value`` as an int if it is in [low, high]; numpy integers are allowed, floats and bools are not.

    Raises:
        TypeError: not an integer. ConfigError: out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r}).")
    try:
        number = value.__index__()
    except TypeError:  # an array of several numbers, or of floats
        raise TypeError(f"{name} must be one whole number, not {type(value).__name__}.") from None
    if not low <= number <= high:
        raise ConfigError(f"{name}={number} is out of range: it must lie in {low} .. {high}.")
    return number


def checked_text(name: str, value: Any) -> str:
    """Return ``value``.

    Raises:
        TypeError: it is not a string.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}.")
    return value


def checked_path(name: str, value: Any) -> Path:
    """Return ``value`` as a path.

    Raises:
        TypeError: it is neither a string nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, not {type(value).__name__}.")
    return Path(value)


def checked_items(name: str, value: Any, count: int, what: str) -> tuple[Any, ...]:
    """Return a tuple or list of ``count`` values; ``what`` describes it in the message.

    Raises:
        TypeError: it is anything else.
    """
    if not isinstance(value, tuple | list) or len(value) != count:
        raise TypeError(f"{name} must be {what}, not {value!r}.")
    return tuple(value)
