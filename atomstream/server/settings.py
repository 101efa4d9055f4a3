"""The settings of a server, checked once, and the folders in its data folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from atomstream.checks import integer_in_range, number_in_range
from atomstream.config import home_expanded, is_loopback, normalise_endpoint, usable_cores
from atomstream.errors import ConfigError
from atomstream.protocol import MAX_SHARD_BYTES
from atomstream.server.key_strength import checked_api_key
from atomstream.server.memory_parts import MemoryParts
from atomstream.server.oidc_settings import OidcSettings
from atomstream.server.retention_rules import RetentionSettings

if TYPE_CHECKING:
    from atomstream.server.ports.bus_address import BusAddress
    from atomstream.server.postgres.address import PostgresAddress

MAX_JSON_BYTES = 1 << 20
"""Longest JSON body of a request that lists streams."""
USUAL_JSON_BYTES = 1 << 16
"""Longest JSON body of other requests: most have a few hundred bytes. A body is decoded in the event loop, and the time
depends on what it has: 300,000 empty lists take a megabyte and a quarter of a second."""

_PREFIX: Final = re.compile(r"(/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")
"""A path without special characters, and without parts that browsers remove."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Address, data folder, keys and time limits (in s) of a server.

    ``port`` 0 selects a free port. With ``api_key`` None, the keys stored in ``data_dir`` are valid; the first start
    creates one. A given ``api_key`` (at least 128 bits) replaces the stored ones, also for later starts without it;
    with ``temporary_key`` it is valid for this run, and the stored ones are again at the next. ``public_url`` is the
    server's address for clients if a proxy is in front of it. ``allowed_hosts`` are additional names that are accepted
    in a request's Host header. Beyond this computer (``host`` is not a loopback address) the server needs TLS;
    ``insecure_network`` allows it without: others on the network can then read keys and frames.

    ``tls_cert`` and ``tls_key`` are PEM files of a certificate and its key: then the server uses https, and loads new
    files as soon as they are there. With ``tls`` "self-signed" it makes a pair in ``data_dir`` once.

    A stream without a chunk for ``silence_s`` has the status interrupted, after ``abandon_s`` the status failed; new
    data makes it active again. An upload URL is valid for ``url_ttl_s``. A connection may be idle for
    ``idle_timeout_s`` between requests and while it sends a request's headers. An upload may pause for
    ``body_idle_s``, and must reach ``body_min_rate`` bytes/s on average from ``body_grace_s`` on. After an upload is
    refused, its body is read for ``linger_s`` more, so that the client can receive the reply. Running requests have
    ``shutdown_s`` to finish when the server stops. ``decode_threads`` 0 means one thread per core, at most two.

    ``memory_bytes`` is the memory of the server and its workers together; 0 becomes 3 GiB, or more if many workers or
    large frames need it. ``worker_memory_bytes`` and ``analysis_shared_bytes`` are lowered to what it leaves for them.

    ``analysis_workers`` is the number of analysis processes (0: one per core, at most two),
    ``analysis_shared_bytes`` the shared memory for the decoded frames that they receive. A worker may take
    ``worker_memory_bytes`` of memory beyond that of the loaded program (Linux only; 0: what ``memory_bytes``
    leaves). Frames larger than ``max_frame_bytes`` (decoded) are refused when they are announced. Long
    reading (series, tables, pictures, lists) has ``read_threads`` threads for each class of requests, of
    which ``max_waiting_reads`` may wait. There are at most ``max_connections`` connections,
    ``max_connections_per_address`` of one address, and ``max_open_streams`` open streams; fewer where the
    process may open few files. A client that reads less than ``reply_min_rate`` bytes/s of a waiting reply in
    ``reply_window_s`` is cut off.

    ``retention`` are the rules by which frames of old streams are removed; without them none is.
    ``oidc`` are the settings of the sign-in by an OpenID Connect provider.

    ``catalogue`` is a PostgreSQL database that several servers share, for names, the list of streams, people, keys and
    sessions; without it they are in ``data_dir``. While it can't be reached, keys that were valid are accepted for
    ``key_cache_s``.

    ``store`` is the URL of an S3 bucket, or a folder, that several servers share: it has the streams, and ``data_dir``
    is a cache of it (see :func:`atomstream.server.ports.store_url.open_store`), which may have ``cache_bytes``. Chunks
    shorter than half of ``object_s`` are merged there into objects of at least ``object_s`` (0: never). With
    ``bus``, a NATS server with JetStream, other processes analyse the streams (``atomstream analyse``). A stream whose
    process does not answer for
    ``pin_s`` is given to another one.

    Messages about alarms are sent to the addresses ``alarm_webhooks``, which often are secrets.

    The analysis waits ``gap_wait_s`` for a missing chunk once a later one has arrived. A subscriber of a feed may be
    ``feed_behind`` records behind.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8765
    api_key: str | None = None
    temporary_key: bool = False
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    insecure_network: bool = False
    tls: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    silence_s: float = 120.0
    abandon_s: float = 7200.0
    url_ttl_s: float = 900.0
    idle_timeout_s: float = 75.0
    body_idle_s: float = 20.0
    body_grace_s: float = 5.0
    body_min_rate: int = 16 * 1024
    max_uploads: int = 32
    decode_threads: int = 0
    linger_s: float = 2.0
    shutdown_s: float = 10.0
    memory_bytes: int = 0
    analysis_workers: int = 0
    analysis_shared_bytes: int = 384 << 20
    worker_memory_bytes: int = 1 << 30
    max_frame_bytes: int = 32 << 20
    max_connections: int = 2048
    max_connections_per_address: int = 1024
    max_open_streams: int = 256
    reply_window_s: float = 30.0
    reply_min_rate: int = 1024
    read_threads: int = 2
    max_waiting_reads: int = 64
    gap_wait_s: float = 5.0
    feed_behind: int = 4096
    retention: RetentionSettings | None = None
    oidc: OidcSettings | None = None
    catalogue: PostgresAddress | None = None
    key_cache_s: float = 3600.0
    store: str | None = None
    cache_bytes: int = 64 << 30
    object_s: float = 2.0
    bus: BusAddress | None = None
    pin_s: float = 3.0
    alarm_webhooks: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "data_dir", home_expanded(self.data_dir).absolute())
        set_field(self, "decode_threads", self.decode_threads or min(2, usable_cores()))
        set_field(self, "analysis_workers", self.analysis_workers or min(2, usable_cores()))
        if self.api_key is not None:
            set_field(self, "api_key", checked_api_key(self.api_key))
        integer_in_range("port", self.port, 0, 65535)
        for name in (
            "silence_s",
            "abandon_s",
            "url_ttl_s",
            "idle_timeout_s",
            "body_idle_s",
            "body_grace_s",
            "reply_window_s",
            "linger_s",
            "shutdown_s",
            "gap_wait_s",
            "key_cache_s",
        ):
            number_in_range(name, getattr(self, name), 1e-3, 1e9)
        for name in (
            "body_min_rate",
            "max_uploads",
            "decode_threads",
            "analysis_workers",
            "feed_behind",
            "read_threads",
            "max_waiting_reads",
            "max_connections",
            "max_connections_per_address",
            "max_open_streams",
            "reply_min_rate",
        ):
            integer_in_range(name, getattr(self, name), 1, 1 << 30)
        integer_in_range("analysis_shared_bytes", self.analysis_shared_bytes, 0, 1 << 40)
        integer_in_range("worker_memory_bytes", self.worker_memory_bytes, 0, 1 << 40)
        integer_in_range("memory_bytes", self.memory_bytes, 0, 1 << 50)
        integer_in_range("cache_bytes", self.cache_bytes, 1, 1 << 60)
        integer_in_range("max_frame_bytes", self.max_frame_bytes, 1, MAX_SHARD_BYTES)
        self._share_out_memory()
        if not self.host:
            raise ConfigError("host is empty: set an address to listen on, such as 127.0.0.1.")
        if self.public_url is not None:
            set_field(self, "public_url", _checked_public_url(self.public_url))
        self._check_tls()
        number_in_range("pin_s", self.pin_s, 0.5, 600.0)
        number_in_range("object_s", self.object_s, 0.0, 60.0)
        if self.bus is not None and self.store is None:
            raise ConfigError(
                "With a message bus other processes analyse the streams, which they find in a store: add --store URL."
            )

    def _share_out_memory(self) -> None:
        parts = MemoryParts(self.analysis_workers, self.decode_threads, self.max_frame_bytes)
        memory = self.memory_bytes or parts.usual_bytes
        shared, worker = parts.shares(memory, self.analysis_shared_bytes, self.worker_memory_bytes)
        object.__setattr__(self, "memory_bytes", memory)
        object.__setattr__(self, "analysis_shared_bytes", shared)
        object.__setattr__(self, "worker_memory_bytes", worker)

    def _check_tls(self) -> None:
        for name in ("tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, home_expanded(path).absolute())
        if self.tls not in (None, "self-signed"):
            raise ConfigError(f"tls={self.tls!r} is unknown; it is 'self-signed', or left out.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key belong together: give the files of certificate and key.")
        if self.tls is not None and self.tls_cert is not None:
            raise ConfigError("Give either tls='self-signed', or the files tls_cert and tls_key.")

    def check_network(self) -> None:
        """Refuse to send keys and frames unencrypted beyond this computer, unless that was allowed.

        Raises:
            ConfigError: ``host`` is not a loopback address, and there is neither TLS nor ``insecure_network``.
        """
        if not (is_loopback(self.host) or self.has_tls or self.insecure_network):
            raise ConfigError(
                f"{self.host} is reached by other computers, and without TLS anyone between them can read the API key "
                "and the frames. Add --tls self-signed, or --tls-cert and --tls-key. Behind a TLS proxy on this "
                "computer use the host 127.0.0.1. In a network where nobody can listen, --insecure-network allows it."
            )

    @property
    def has_tls(self) -> bool:
        """Whether the server uses https."""
        return self.tls is not None or self.tls_cert is not None

    @property
    def public_host(self) -> str | None:
        """The host of ``public_url``."""
        return urlsplit(self.public_url).hostname if self.public_url else None

    @property
    def path_prefix(self) -> str:
        """The path of ``public_url``: empty, or such as ``/rheed``."""
        return urlsplit(self.public_url).path if self.public_url else ""

    @classmethod
    def limits(cls) -> dict[str, int | float]:
        """The names and defaults of all limits: the settings that are numbers, except the port."""
        return {
            field.name: field.default
            for field in fields(cls)
            if isinstance(field.default, (int, float))
            and not isinstance(field.default, bool)
            and field.name != "port"
        }

    @property
    def streams_dir(self) -> Path:
        """Contains one folder per stream, with its archive and description."""
        return self.data_dir / "streams"


def _checked_public_url(url: str) -> str:
    try:
        checked = normalise_endpoint(url)
    except ConfigError as error:
        raise ConfigError(f"public_url: {error}") from None
    path = urlsplit(checked).path
    if not _PREFIX.fullmatch(path):
        raise ConfigError(
            f"The path {path!r} of public_url has parts that are not possible there: use letters, digits and . _ ~ -, "
            "such as https://lab.example/rheed."
        )
    return checked
