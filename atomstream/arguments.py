"""Checks of arguments that the client, the command line and the server share, so all accept the same values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from atomstream.checks import number_in_range
from atomstream.errors import ConfigError
from atomstream.protocol import (
    CALIBRATION_LIMITS,
    EVENT_KIND_PATTERN,
    MAX_LABEL_CHARS,
    MAX_LAYER_UNIT_CHARS,
    MAX_RPM,
)

if TYPE_CHECKING:  # for ``atomstream --help``: records imports numpy
    from atomstream.records import Json


def check_event(kind: Any, label: Any, value: Any) -> float | None:
    """Check an event of a stream; returns its value as a float, or None.

    Raises:
        TypeError: a wrong type. ConfigError: a value that is not allowed.
    """
    if not isinstance(kind, str):
        raise TypeError(f"kind must be a string, not {type(kind).__name__}.")
    if not re.fullmatch(EVENT_KIND_PATTERN, kind):
        raise ConfigError(
            f"kind={kind!r} is not allowed: it must be one word of a-z, 0-9 and _, at most 32 characters, such as "
            "'shutter', 'laser', 'growth', 'pause' (which begin a segment) or 'note'."
        )
    if not isinstance(label, str):
        raise TypeError(f"label must be a string, not {type(label).__name__}.")
    if len(label) > MAX_LABEL_CHARS:
        raise ConfigError(f"label has {len(label)} characters; at most {MAX_LABEL_CHARS} are allowed.")
    if kind == "rotation":
        if value is None:
            raise ConfigError("A change of rotation needs its rotations per minute as value.")
        return number_in_range("value", value, 0.0, MAX_RPM, "rpm")
    if value is None:
        return None
    number = number_in_range("value", value, -math.inf, math.inf)
    if math.isinf(number):
        raise ConfigError(f"value={value!r} is not a finite number.")
    return number


def check_calibration(values: Mapping[str, Any]) -> dict[str, Json]:
    """Check a stream's calibration; returns the values that are not None, numbers as floats.

    Raises:
        TypeError: a wrong type. ConfigError: a value that is not allowed.
    """
    return {name: _calibration_value(name, value) for name, value in values.items() if value is not None}


def _calibration_value(name: str, value: Any) -> Json:
    if name != "layer_unit":
        return number_in_range(name, value, *CALIBRATION_LIMITS[name])
    if not isinstance(value, str):
        raise TypeError(f"layer_unit must be a string, not {type(value).__name__}.")
    if not 0 < len(value.strip()) <= MAX_LAYER_UNIT_CHARS:
        raise ConfigError(
            f"layer_unit={value!r} must have 1 to {MAX_LAYER_UNIT_CHARS} characters, for example 'unit cell'."
        )
    return value


MAX_ATTRIBUTES: Final = 64
"""Most attributes of a stream."""

MAX_ATTRIBUTE_CHARS: Final = 1000
"""Longest text of an attribute, and most entries of a list."""

MAX_ATTRIBUTES_BYTES: Final = 65_536
"""Most bytes of all attributes of a stream as JSON: its documents contain them, and are written for each chunk."""
_ATTRIBUTE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def check_attributes(attributes: Any) -> dict[str, Json]:
    """Check the attributes of a stream: each value is a string, a number, a bool, or a list of them.

    Raises:
        TypeError: a wrong type. ConfigError: a name or value that is not allowed.
    """
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes must be a dict, not {type(attributes).__name__}.")
    if len(attributes) > MAX_ATTRIBUTES:
        raise ConfigError(f"There are {len(attributes)} attributes; at most {MAX_ATTRIBUTES} are allowed.")
    for name, value in attributes.items():
        if not isinstance(name, str) or not _ATTRIBUTE_NAME.fullmatch(name):
            raise ConfigError(
                f"The attribute name {name!r} is not allowed: it is a-z, 0-9 and _, begins with a letter and has at "
                "most 64 characters."
            )
        entries = value if isinstance(value, (list, tuple)) else [value]
        if len(entries) > MAX_ATTRIBUTE_CHARS:
            raise ConfigError(
                f"The attribute {name} has {len(entries)} entries; at most {MAX_ATTRIBUTE_CHARS} are allowed."
            )
        for entry in entries:
            _check_attribute_value(name, entry)
    checked = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
    nbytes = len(json.dumps(checked, ensure_ascii=False).encode())
    if nbytes > MAX_ATTRIBUTES_BYTES:
        raise ConfigError(
            f"The attributes have {nbytes} bytes together; at most {MAX_ATTRIBUTES_BYTES} are allowed. Put long lists "
            "into a file, and name it in an attribute."
        )
    return checked


def _check_attribute_value(name: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MAX_ATTRIBUTE_CHARS:
            raise ConfigError(
                f"The attribute {name} has {len(value)} characters; at most {MAX_ATTRIBUTE_CHARS} are allowed."
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"The attribute {name} contains an invalid character (a lone surrogate)."
            ) from None
    elif isinstance(value, (int, float)):
        if not math.isfinite(value) or abs(value) > 1e300:
            raise ConfigError(f"The attribute {name} is {value!r}, which is not a finite number.")
    else:
        raise TypeError(
            f"The attribute {name} must be a string, a number, a bool or a list of them, not {type(value).__name__}."
        )
