"""Frozen settings with their defaults and limits, and the only reader of the environment.

Environment: ``ATOMSTREAM_API_KEY`` (both ends), ``ATOMSTREAM_ENDPOINT``, ``ATOMSTREAM_SPOOL_DIR``,
``ATOMSTREAM_SKIP_CLOCK_SYNC`` (also honoured under the peer's name ``ATOMSCALE_SKIP_CLOCK_SYNC``),
``ATOMSTREAM_PLAIN_OS`` (:mod:`atomstream.system.tuning`).
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

from atomstream.errors import ConfigError

HOSTED_ENDPOINT = "https://api.atomscale.ai"
SERVER_KEY_PREFIX = "atst_"
"""Keys that an atomstream server makes begin so; the client then never guesses an endpoint."""

MIB = 1 << 20
MAX_CHUNK_INDEX = 10_000_000
"""Over 200 days of 2 s chunks: larger indices are a mistake, and would make the archive's shape absurd."""
MAX_INDEX_JUMP = 100_000
"""Chunks that may be left out at once: days of 2 s chunks; each becomes a line of the report."""
MAX_CHUNK_SIZE = 100_000
MAX_FPS = 100_000.0
MAX_RPM = 10_000.0
SPOOL_MIN_FREE_BYTES = 512 * MIB
MAX_SHARD_BYTES = 1 << 30
"""Largest encoded chunk that the server takes; a client refuses a larger raw chunk before that."""

OnFull: TypeAlias = Literal["wait", "drop_newest", "drop_oldest", "raise"]
Durability: TypeAlias = Literal["memory", "disk"]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All that a streamer can be told, checked once.

    Memory held for frames, raw and encoded, stays below ``buffer_bytes`` plus one chunk; the process above
    its baseline below that plus ``upload_concurrency`` * 2 MiB plus the encoders' contexts (docs/promises.md).
    """

    api_key: str
    endpoint: str
    buffer_bytes: int = 512 * MIB
    on_full: OnFull = "wait"
    full_timeout_s: float | None = None
    durability: Durability = "memory"
    compression_level: int = 1
    encoder_threads: int = 2
    upload_concurrency: int = 4
    request_timeout_s: float = 30.0
    upload_timeout_s: float = 300.0
    clock_sync: bool = True
    spool_dir: Path = Path("spool")
    spool_max_bytes: int | None = None
    spool_min_free_bytes: int = SPOOL_MIN_FREE_BYTES
    spool_retention_s: float | None = None

    def __post_init__(self) -> None:
        _one_of("on_full", self.on_full, get_args(OnFull))
        _one_of("durability", self.durability, get_args(Durability))
        integer_in_range("buffer_bytes", self.buffer_bytes, 1, 1 << 50)
        integer_in_range("compression_level", self.compression_level, -50, 22)
        integer_in_range("encoder_threads", self.encoder_threads, 1, 256)
        integer_in_range("upload_concurrency", self.upload_concurrency, 1, 256)
        _positive("request_timeout_s", self.request_timeout_s)
        _positive("upload_timeout_s", self.upload_timeout_s)
        if self.full_timeout_s is not None:
            number_in_range("full_timeout_s", self.full_timeout_s, 0.0, math.inf)
        if self.spool_max_bytes is not None:
            integer_in_range("spool_max_bytes", self.spool_max_bytes, 1, 1 << 60)
        integer_in_range("spool_min_free_bytes", self.spool_min_free_bytes, 0, 1 << 60)
        if self.spool_retention_s is not None:
            _positive("spool_retention_s", self.spool_retention_s)


def default_buffer_bytes() -> int:
    """512 MiB or a quarter of this machine's memory, whichever is smaller (docs/decisions/0003-memory-budget.md)."""
    return min(512 * MIB, _physical_memory() // 4)


def default_encoder_threads() -> int:
    """One compressor for each core that this process may use, at most 4."""
    return max(1, min(4, usable_cores()))


def usable_cores() -> int:
    """Cores this process may run on (a container's affinity counts, where the system tells it)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_api_key(given: str | None) -> str:
    """The key to use: as given, else ``$ATOMSTREAM_API_KEY``.

    Raises:
        ConfigError: no key was found, or it holds characters that an HTTP header can't carry.
    """
    key = (given or os.environ.get("ATOMSTREAM_API_KEY") or "").strip()
    if not key:
        raise ConfigError(
            "No API key: pass api_key='...' or set ATOMSTREAM_API_KEY. "
            "(An atomstream server prints one at its first start.)"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError("The API key holds characters that no key has; copy it again, without quotes.")
    return key


def resolve_endpoint(given: str | None, api_key: str) -> str:
    """The endpoint to use: as given, else ``$ATOMSTREAM_ENDPOINT``, else the hosted service.

    A key of one's own server with no endpoint is refused: nothing of a lab leaves the building by mistake.

    Raises:
        ConfigError: not an http(s) URL, or none given for a key that one's own server made.
    """
    endpoint = explicit_endpoint(given)
    if endpoint is not None:
        return endpoint
    if api_key.startswith(SERVER_KEY_PREFIX):
        raise ConfigError(
            "This API key belongs to an atomstream server of your own, but no endpoint was given: pass "
            "endpoint='http://HOST:8765' or set ATOMSTREAM_ENDPOINT. (Nothing was sent anywhere.)"
        )
    return HOSTED_ENDPOINT


def explicit_endpoint(given: str | None) -> str | None:
    """The endpoint as given, else ``$ATOMSTREAM_ENDPOINT``, in its one spelling; None where neither names one.

    Raises:
        ConfigError: not an http(s) URL.
    """
    endpoint = given or os.environ.get("ATOMSTREAM_ENDPOINT")
    return normalise_endpoint(endpoint) if endpoint else None


def normalise_endpoint(url: str) -> str:
    """One spelling for each endpoint: lower-case scheme and host, no default port, no trailing slash.

    Raises:
        ConfigError: not an absolute http(s) URL, or one with a query, fragment or user info.
    """
    text = url.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"The endpoint {url!r} is not a URL: {error}.") from None
    scheme = parts.scheme.lower()
    if scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"The endpoint {url!r} is not an http(s) URL, such as http://127.0.0.1:8765.")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ConfigError(f"The endpoint {url!r} must be scheme, host, port and path only.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), "", ""))


def resolve_spool_dir(given: str | os.PathLike[str] | None) -> Path:
    """Where the spool lies: as given, else ``$ATOMSTREAM_SPOOL_DIR``, else the user's state folder."""
    chosen = given or os.environ.get("ATOMSTREAM_SPOOL_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_state_path  # lazily: only streamers with a default spool need it

    return user_state_path("atomstream", appauthor=False) / "spool"


def clock_sync_enabled() -> bool:
    """False where the environment asks to skip the measurement of reference time."""
    names = ("ATOMSTREAM_SKIP_CLOCK_SYNC", "ATOMSCALE_SKIP_CLOCK_SYNC")
    return all(os.environ.get(name, "").strip().lower() in {"", "0", "false", "no"} for name in names)


def plain_os(known: frozenset[str]) -> frozenset[str]:
    """Which of the ``known`` operating-system optimisations ``$ATOMSTREAM_PLAIN_OS`` turns off.

    ``1`` (or ``true``, ``yes``, ``all``) means all of them, ``0`` or nothing none; else it is a list such as
    ``affinity,yield``. Unknown names have no effect but a warning in the log.
    """
    value = os.environ.get("ATOMSTREAM_PLAIN_OS", "").strip().lower()
    if value in {"1", "true", "yes", "all"}:
        return known
    names = frozenset(filter(None, (name.strip() for name in value.split(",")))) - {"0", "false", "no"}
    if unknown := names - known:
        logging.getLogger("atomstream").warning(
            "ATOMSTREAM_PLAIN_OS names %s, which does not exist: it is 1, or a list of some of %s.",
            ", ".join(sorted(unknown)),
            ", ".join(sorted(known)),
        )
    return names & known


def environment_api_key() -> str | None:
    """The key that ``atomstream serve`` takes from ``$ATOMSTREAM_API_KEY``, if any."""
    return (os.environ.get("ATOMSTREAM_API_KEY") or "").strip() or None


def number_in_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` as a float in [low, high].

    Raises:
        TypeError: not a number. ConfigError: not finite or out of range.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
    number = float(value)
    if math.isnan(number) or not low <= number <= high:
        raise ConfigError(f"{name}={value!r} is out of range: it must lie in {low:g} .. {high:g}.")
    return number


def integer_in_range(name: str, value: int, low: int, high: int) -> int:
    """``value`` as an int in [low, high]; numpy integers are taken, floats and bools are not.

    Raises:
        TypeError: not a whole number. ConfigError: out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r}).")
    number = value.__index__()
    if not low <= number <= high:
        raise ConfigError(f"{name}={number} is out of range: it must lie in {low} .. {high}.")
    return number


def _positive(name: str, value: float) -> None:
    number_in_range(name, value, 1e-3, 1e9)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is unknown; it is one of {', '.join(map(repr, allowed))}.")


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 8 * 1024 * MIB
