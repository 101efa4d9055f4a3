"""Checks of the arguments of the reading clients: a wrong one is an error, and never a search without results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypeAlias

from atomstream.errors import ConfigError

Texts: TypeAlias = str | Iterable[str] | None
Range: TypeAlias = tuple[float | None, float | None]
Times: TypeAlias = tuple[datetime | None, datetime | None]

_STATUSES: Final = (
    "stream_active", "stream_interrupted", "stream_finalizing", "stream_error", "success", "error", "pending",
    "running",
)  # fmt: skip
"""Those of streams, and those that the hosted service has for files."""


_ALIASES: Final = {
    "rheed_stationary": ("rheed",), "rheed_rotating": ("rheed",),
    "all": ("rheed", "tool_state"), "metrology": ("tool_state",), "pl": ("photoluminescence",),
}  # fmt: skip
_TYPES: Final = (
    "rheed", "rheed_image", "tool_state", "xps", "xrd", "photoluminescence",
    "raman", "recipe", "optical", "ellipsometry",
)  # fmt: skip
DATA_TYPES: Final[dict[str, tuple[str, ...]]] = {name: (name,) for name in _TYPES} | _ALIASES
"""Types of data of the hosted service, and what is searched for. An atomstream server has RHEED and signals."""


def texts(name: str, given: Any) -> list[str]:
    """Return one string, several or none as a list. Raises ConfigError if they are not strings."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    found = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{name} is {given!r}; it must be a string, or a list of strings.")
    return found


def ids(name: str, given: Any) -> list[Any]:
    """Return the ids that are given, one or several. Raises ConfigError if they are neither a string nor a list."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return [given]
    if isinstance(given, (bytes, dict)):
        raise ConfigError(f"{name} is {given!r}; it must be the id of a stream, or a list of ids.")
    return list(given)


def one_id(data_id: Any) -> str:
    """Return the id of a stream. Raises ConfigError if it is not a string, or empty: a search for that finds any
    stream."""
    if not isinstance(data_id, str) or not data_id.strip():
        raise ConfigError(f"The id of a stream is {data_id!r}; it must be a string that is not empty.")
    return data_id


def statuses(status: Any) -> list[str]:
    """Return the status to search for, none for any. Raises ConfigError for an unknown one."""
    if status is None or (isinstance(status, str) and status == "all"):
        return []
    if not isinstance(status, str) or status not in _STATUSES:
        raise ConfigError(f"status is {status!r}; it must be one of {', '.join(_STATUSES)}, all.")
    return [status]


def data_types(data_type: Any, kind: str) -> tuple[str, ...]:
    """Return the types to search for. Raises ConfigError for an unknown one, and if ``kind`` is given as well."""
    if not isinstance(data_type, str) or data_type not in DATA_TYPES:
        raise ConfigError(f"data_type is {data_type!r}; it must be one of {', '.join(DATA_TYPES)}.")
    if kind != "frames":
        raise ConfigError(f"Give data_type={data_type!r} or kind={kind!r}, not both.")
    return DATA_TYPES[data_type]


def flag(name: str, value: Any) -> bool:
    """Return True or False. Raises ConfigError for anything else."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be True or False.")
    return value


def pair(name: str, given: Any) -> tuple[Any, Any]:
    """Return the two ends of a range. Raises ConfigError for anything else."""
    if isinstance(given, str) or not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ConfigError(f"{name} is {given!r}; it must be a pair (from, to), of which each may be None.")
    return given[0], given[1]


def number(name: str, value: Any) -> str:
    """Return a length in seconds for a request. Raises ConfigError for one that is not finite."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ConfigError(f"{name} has {value!r}; it must be a number of seconds, or None.")
    return repr(seconds)


def moment(name: str, value: Any) -> str:
    """Return a time for a request; one without a time zone is local. Raises ConfigError if it is not a datetime."""
    if not isinstance(value, datetime):
        raise ConfigError(f"{name} has {value!r}; it must be a datetime.datetime, or None.")
    return value.astimezone().isoformat()
