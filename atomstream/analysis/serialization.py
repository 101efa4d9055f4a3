"""Any of the analysis' records to plain msgpack-able values and back, so that an engine outlives its process."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

VERSION = 8


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
    """Undo :func:`pack`; ``classes`` names the dataclasses that may occur. Raises ConfigError for others."""
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
            f"analysis state: unknown part {packed.get('~c')!r}; it was made by another version"
        )
    return record_class(**{name: unpack(value, classes) for name, value in packed["~f"].items()})
