"""Serialisation of the analysis state: dataclasses and arrays to plain values that msgpack can encode, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

VERSION = 21
"""Version of the stored state; raise it with each change of a class or field name.

A state of another version is refused, and the server analyses the stream from its stored frames again.
"""


def pack(value: Any) -> Any:
    """Turn dataclasses, arrays, tuples, dicts and plain values into dicts, lists, bytes and numbers."""
    if isinstance(value, np.ndarray):
        return {"~a": [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: pack(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"~c": type(value).__name__, "~f": fields}
    if isinstance(value, tuple):
        return {"~t": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        return {"~d": [[pack(key), pack(value)] for key, value in value.items()]}
    return value


def unpack(packed: Any, classes: dict[str, type]) -> Any:
    """Restore what :func:`pack` returned. ``classes`` are the dataclasses allowed; ConfigError for any other."""
    if isinstance(packed, list):
        return [unpack(item, classes) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if "~a" in packed:
        dtype, shape, data = packed["~a"]
        return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
    if "~t" in packed:
        return tuple(unpack(item, classes) for item in packed["~t"])
    if "~d" in packed:
        return {unpack(key, classes): unpack(value, classes) for key, value in packed["~d"]}
    record_class = classes.get(packed.get("~c", ""))
    if record_class is None:
        raise ConfigError(
            f"analysis state: unknown part {packed.get('~c')!r}; it was written by another version"
        )
    return record_class(**{name: unpack(value, classes) for name, value in packed["~f"].items()})
