"""The client's settings with their defaults and ranges. Only this module reads the environment.

Limits that client and server both check are in :mod:`atomstream.protocol`. A limit that one module alone uses is in
that module.

Environment variables: ``ATOMSTREAM_API_KEY`` or ``ATOMSTREAM_API_KEY_FILE`` (client and server),
``ATOMSTREAM_ENDPOINT``, ``ATOMSTREAM_TLS_FINGERPRINT``, ``ATOMSTREAM_SPOOL_DIR``,
``ATOMSTREAM_SKIP_CLOCK_SYNC`` or ``ATOMSCALE_SKIP_CLOCK_SYNC``,
``ATOMSTREAM_PLAIN_OS`` (:mod:`atomstream.system.tuning`).
"""

from __future__ import annotations

import logging
import math
import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

from atomstream.checks import checked_path, integer_in_range, number_in_range
from atomstream.errors import ConfigError

HOSTED_ENDPOINT = "https://api.atomscale.ai"

MIB = 1 << 20

MAX_KEY_FILE_BYTES = 4096

SPOOL_MIN_FREE_BYTES = 512 * MIB

OnFull: TypeAlias = Literal["wait", "drop_newest", "drop_oldest", "raise"]
Durability: TypeAlias = Literal["memory", "disk"]
WhenUnreachable: TypeAlias = Literal["record", "raise"]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings of a streamer; an invalid one raises ConfigError or TypeError.

    Memory of frames, raw and encoded, stays below ``buffer_bytes`` plus one chunk. The process uses at most
    ``upload_concurrency`` * 2 MiB and the encoders' zstd contexts more than that (docs/promises.md).
    """

    api_key: str
    endpoint: str
    buffer_bytes: int = 512 * MIB
    """Memory for frames, 1 byte to 1 PiB."""
    when_unreachable: WhenUnreachable = "record"
    """What ``initialize`` does while the server can't be reached: begin under a local id, or raise."""
    on_full: OnFull = "wait"
    """What ``push`` does when that memory is used up."""
    full_timeout_s: float | None = None
    """Longest wait for memory in seconds, from 0; None: no limit."""
    durability: Durability = "memory"
    """``push`` returns when the frames are copied ("memory"), or on disk or stored by the server ("disk")."""
    compression_level: int = 1
    """zstd's level, -50 to 22."""
    encoder_threads: int = 2
    """1 to 256."""
    upload_concurrency: int = 4
    """Number of uploads at the same time, 1 to 256."""
    request_timeout_s: float = 30.0
    """Time limit of a request except uploads, 0.001 to 1e9 s."""
    upload_timeout_s: float = 300.0
    """Time limit of an upload, 0.001 to 1e9 s."""
    clock_sync: bool = True
    """Measure the offset of the server's clock and correct capture times with it."""
    spool_dir: Path = Path("spool")
    spool_max_bytes: int | None = None
    """Disk space for records, from 1 byte; None: 20 GB or 10 % of the free space, whichever is smaller."""
    spool_min_free_bytes: int = SPOOL_MIN_FREE_BYTES
    """Disk space that the spool leaves free, from 0 bytes."""
    spool_retention_s: float | None = None
    """Age at which records are purged, 0.001 to 1e9 s; None: never."""

    def __post_init__(self) -> None:
        _one_of("on_full", self.on_full, get_args(OnFull))
        _one_of("when_unreachable", self.when_unreachable, get_args(WhenUnreachable))
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
    """512 MiB or a quarter of this computer's memory, whichever is smaller (docs/decisions/0003-memory-budget.md)."""
    return min(512 * MIB, _physical_memory() // 4)


def default_encoder_threads() -> int:
    """One encoder thread for each usable core, at most 4."""
    return max(1, min(4, usable_cores()))


def usable_cores() -> int:
    """Number of cores that this process may run on. On Linux this is the CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_api_key(key: str) -> str:
    """Return the API key ``key`` if it can be sent in an HTTP header.

    Raises:
        ConfigError: it is empty, or has characters that are not allowed.
    """
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(
            "The API key has characters that are not allowed in a key; copy it again, without quotes."
        )
    return key


def explicit_endpoint(explicit: str | None) -> str | None:
    """The endpoint ``explicit``, else ``$ATOMSTREAM_ENDPOINT``, normalised; None if neither is set.

    Raises:
        ConfigError: not an http(s) URL.
    """
    endpoint = explicit or os.environ.get("ATOMSTREAM_ENDPOINT")
    return normalise_endpoint(endpoint) if endpoint else None


def normalise_endpoint(url: str) -> str:
    """Normalise an endpoint: lower-case scheme and host, no default port, no trailing slash.

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
    if parts.query or parts.fragment or parts.username or parts.password:  # not quoted: they may be secrets
        raise ConfigError(
            f"The endpoint with the host {parts.hostname!r} must have scheme, host, port and path only."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), "", ""))


def pinned_certificate(endpoint: str) -> bytes | None:
    """The SHA-256 of the certificate that the server must have: ``$ATOMSTREAM_TLS_FINGERPRINT``; None if not set.

    The value has 64 hexadecimal digits; colons, blanks and a prefix ``sha256:`` are allowed, as other programs print
    them. An http endpoint has no certificate. It is an error, so that a mistyped endpoint does not send the key in
    clear; on this computer itself (``atomstream demo``) the value is ignored.

    Raises:
        ConfigError: not such a number, or the endpoint is an http URL of another computer.
    """
    value = os.environ.get("ATOMSTREAM_TLS_FINGERPRINT", "").strip()
    if not value:
        return None
    digits = re.sub(r"[:\s]", "", re.sub(r"(?i)^sha-?256\s*(fingerprint)?\s*[:=]", "", value))
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
        raise ConfigError(
            "ATOMSTREAM_TLS_FINGERPRINT is not the SHA-256 of a certificate: that has 64 hexadecimal digits, with or "
            "without colons. The server prints it at its start."
        )
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        return bytes.fromhex(digits)
    if is_loopback(parts.hostname or ""):
        return None
    raise ConfigError(
        f"ATOMSTREAM_TLS_FINGERPRINT is set, but the endpoint {endpoint} is not an https URL: key and frames would be "
        "sent unencrypted. Write https://, or remove the variable."
    )


def is_loopback(host: str) -> bool:
    """True if ``host`` (a name or an address, without brackets) is this machine."""
    host = host.lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def home_expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with the home folder in place of ``~`` or ``~NAME`` at its beginning.

    Raises:
        ConfigError: there is no such user, or the user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{os.fspath(path)!r} begins with the home folder of a user, and none is known. Write the whole path."
        ) from None


def resolve_spool_dir(explicit: str | os.PathLike[str] | None) -> Path:
    """The spool folder: ``explicit``, else ``$ATOMSTREAM_SPOOL_DIR``, else one in the user's state folder."""
    if explicit is not None:
        checked_path("spool_dir", explicit)
    chosen = explicit or os.environ.get("ATOMSTREAM_SPOOL_DIR")
    if chosen:
        return home_expanded(chosen).absolute()
    from platformdirs import user_state_path  # only streamers with the default folder need this import

    return user_state_path("atomstream", appauthor=False) / "spool"


def clock_sync_enabled() -> bool:
    """False if the environment disables the measurement of the reference clock."""
    names = ("ATOMSTREAM_SKIP_CLOCK_SYNC", "ATOMSCALE_SKIP_CLOCK_SYNC")
    return all(os.environ.get(name, "").strip().lower() in {"", "0", "false", "no"} for name in names)


def plain_os(known: frozenset[str]) -> frozenset[str]:
    """Those of the ``known`` operating-system optimisations that ``$ATOMSTREAM_PLAIN_OS`` turns off.

    ``1`` (or ``true``, ``yes``, ``all``) means all of them, ``0`` or an empty value none. Otherwise it is a list
    such as ``mmap,yield``. An unknown name only causes a warning in the log.
    """
    value = os.environ.get("ATOMSTREAM_PLAIN_OS", "").strip().lower()
    if value in {"1", "true", "yes", "all"}:
        return known
    names = frozenset(filter(None, (name.strip() for name in value.split(",")))) - {"0", "false", "no"}
    if unknown := names - known:
        logging.getLogger("atomstream").warning(
            "ATOMSTREAM_PLAIN_OS contains the unknown name %s. Allowed are 1, or a list of names from: %s.",
            ", ".join(sorted(unknown)),
            ", ".join(sorted(known)),
        )
    return names & known


def environment_api_key() -> str | None:
    """``$ATOMSTREAM_API_KEY``, else the key in the file ``$ATOMSTREAM_API_KEY_FILE``, or None.

    Raises:
        ConfigError: the file can't be read, or holds no key.
    """
    key = (os.environ.get("ATOMSTREAM_API_KEY") or "").strip()
    path = os.environ.get("ATOMSTREAM_API_KEY_FILE")
    if key or not path:
        return key or None
    return read_key_file(home_expanded(path))


def read_key_file(path: Path) -> str:
    """The API key in a file: its only line that is not blank, without blanks around it.

    Raises:
        ConfigError: the file can't be read, or does not hold exactly one line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The file with the API key, {path}, can't be read: {error.strerror}.") from None
    lines = text.decode("utf-8-sig", "replace").split()
    if len(lines) != 1 or len(text) > MAX_KEY_FILE_BYTES:
        raise ConfigError(f"The file {path} must hold the API key and nothing else.")
    return lines[0]


def _positive(name: str, value: float) -> None:
    number_in_range(name, value, 1e-3, 1e9)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(f"{name}={value!r} is unknown; it is one of {', '.join(map(repr, allowed))}.")


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 8 * 1024 * MIB
