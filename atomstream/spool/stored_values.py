"""Checks of values that were read from a file of the spool. A checksum proves that the bytes are undamaged, not that a
value is possible: another program may have written the file. So the type and range of each value are checked, and a
wrong one damages only the record, entry or description that contains it.

All functions return the value, or raise ValueError.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

from atomstream.protocol import MAX_CHUNK_INDEX, MAX_CHUNK_SIZE, MAX_SHARD_BYTES

MAX_TEXT_CHARS: Final = 4096
MAX_DIGEST_BYTES: Final = 64
MAX_BODY_FIELDS: Final = 64
MAX_PIXELS: Final = 1 << 20
"""Largest height or width of a frame."""


def stored_text(value: Any) -> str:
    """A string of at most ``MAX_TEXT_CHARS`` characters."""
    if type(value) is not str or len(value) > MAX_TEXT_CHARS:
        raise ValueError(f"expected a string of at most {MAX_TEXT_CHARS} characters")
    return value


def stored_body(value: Any) -> dict[str, Any]:
    """The body of a request: a flat map of short strings, numbers, flags and None."""
    if type(value) is not dict or len(value) > MAX_BODY_FIELDS:
        raise ValueError(f"expected a map of at most {MAX_BODY_FIELDS} fields")
    for field, content in value.items():
        stored_text(field)
        if content is None or type(content) in (bool, int):
            continue
        if type(content) is float and math.isfinite(content):
            continue
        stored_text(content)
    return value


def stored_flag(value: Any) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def stored_integer(value: Any, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``; True and False are refused."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected a whole number of {low} .. {high}")
    return value


def stored_number(value: Any, low: float, high: float) -> float:
    """A number from ``low`` to ``high``; NaN is in no range."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"expected a number of {low:g} .. {high:g}")
    return float(value)


def stored_digest(value: Any) -> bytes:
    """A digest: at most ``MAX_DIGEST_BYTES`` bytes."""
    if type(value) is not bytes or len(value) > MAX_DIGEST_BYTES:
        raise ValueError(f"expected at most {MAX_DIGEST_BYTES} bytes")
    return value


def stored_index(value: Any) -> int:
    """The index of a chunk."""
    return stored_integer(value, 0, MAX_CHUNK_INDEX)


def stored_dtype(value: Any) -> Literal["uint8", "uint16"]:
    """The name of a pixel type."""
    if value == "uint8":
        return "uint8"
    if value == "uint16":
        return "uint16"
    raise ValueError("expected uint8 or uint16")


def stored_dims(value: Any) -> tuple[int, int, int]:
    """(N, H, W): frames, rows and columns of a chunk of at most ``MAX_SHARD_BYTES`` bytes of pixels."""
    n_frames, height, width = value
    dims = (
        stored_integer(n_frames, 1, MAX_CHUNK_SIZE),
        stored_integer(height, 1, MAX_PIXELS),
        stored_integer(width, 1, MAX_PIXELS),
    )
    if dims[0] * dims[1] * dims[2] > MAX_SHARD_BYTES:
        raise ValueError(f"the chunk would have more than {MAX_SHARD_BYTES} bytes")
    return dims
