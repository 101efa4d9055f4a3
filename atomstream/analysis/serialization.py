"""Any of the analysis' records to plain msgpack-able values and back, so that an engine outlives its process."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from atomstream.errors import ConfigError

VERSION = 7


def pack(thing: Any) -> Any:
    """Turn dataclasses, arrays, tuples, dicts and plain values into dicts, lists, bytes and numbers."""
    if isinstance(thing, np.ndarray):
        return {"~a": [thing.dtype.str, list(thing.shape), np.ascontiguousarray(thing).tobytes()]}
    if isinstance(thing, np.generic):
        return thing.item()
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: pack(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"~c": type(thing).__name__, "~f": fields}
    if isinstance(thing, tuple):
        return {"~t": [pack(item) for item in thing]}
    if isinstance(thing, list):
        return [pack(item) for item in thing]
    if isinstance(thing, dict):
        return {"~d": [[pack(key), pack(value)] for key, value in thing.items()]}
    return thing


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
    kind = classes.get(packed.get("~c", ""))
    if kind is None:
        raise ConfigError(
            f"analysis state: unknown part {packed.get('~c')!r}; it was made by another version"
        )
    return kind(**{name: unpack(value, classes) for name, value in packed["~f"].items()})
