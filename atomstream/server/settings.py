"""What a server can be told, checked once, and where things lie under its data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atomstream.config import integer_in_range, normalise_endpoint, number_in_range, usable_cores
from atomstream.errors import ConfigError

MAX_JSON_BYTES = 1 << 20
"""Longest JSON body read; the longest one of the protocol has a few hundred bytes."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where to listen, where to store, whom to believe, and how long to wait (in s).

    ``port`` 0 takes a free one. ``api_key`` None means the keys kept in ``data_dir``, of which the first start
    makes one. ``public_url`` is the server's address as clients see it, where a proxy stands before it.
    ``allowed_hosts`` are further names that a request's Host may carry.

    A stream without a chunk for ``silence_s`` is told as interrupted, for ``abandon_s`` as failed; either comes
    back when data comes. An upload URL is good for ``url_ttl_s``. A connection may rest for ``idle_timeout_s``
    between requests and for a request's head; an upload for ``body_idle_s``, and must keep up
    ``body_min_rate`` bytes a second on the whole. Of a refused upload ``linger_s`` are still read, so that the
    client sees why. ``shutdown_s`` is what running requests get at the end. ``decode_threads`` 0 means one for
    each core, at most two.

    ``analysis_workers`` are processes that analyse (0: one for each core, at most two), ``analysis_shared_bytes``
    the memory in which decoded frames are handed to them. A missing chunk is waited for ``gap_wait_s`` in the
    analysis once a later one is there. A feed's reader may be ``feed_behind`` records behind.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8765
    api_key: str | None = None
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    silence_s: float = 120.0
    abandon_s: float = 7200.0
    url_ttl_s: float = 900.0
    idle_timeout_s: float = 75.0
    body_idle_s: float = 20.0
    body_min_rate: int = 16 * 1024
    max_uploads: int = 32
    decode_threads: int = 0
    linger_s: float = 2.0
    shutdown_s: float = 10.0
    analysis_workers: int = 0
    analysis_shared_bytes: int = 384 << 20
    gap_wait_s: float = 5.0
    feed_behind: int = 4096

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "data_dir", Path(self.data_dir).expanduser().absolute())
        set_field(self, "decode_threads", self.decode_threads or min(2, usable_cores()))
        set_field(self, "analysis_workers", self.analysis_workers or min(2, usable_cores()))
        integer_in_range("port", self.port, 0, 65535)
        for name in (
            "silence_s",
            "abandon_s",
            "url_ttl_s",
            "idle_timeout_s",
            "body_idle_s",
            "linger_s",
            "shutdown_s",
            "gap_wait_s",
        ):
            number_in_range(name, getattr(self, name), 1e-3, 1e9)
        for name in ("body_min_rate", "max_uploads", "decode_threads", "analysis_workers", "feed_behind"):
            integer_in_range(name, getattr(self, name), 1, 1 << 30)
        integer_in_range("analysis_shared_bytes", self.analysis_shared_bytes, 0, 1 << 40)
        if not self.host:
            raise ConfigError("host is empty: give an address to listen on, such as 127.0.0.1.")
        if self.public_url is not None:
            set_field(self, "public_url", normalise_endpoint(self.public_url))

    @property
    def streams_dir(self) -> Path:
        """One folder for each stream: its archive and all that is known of it."""
        return self.data_dir / "streams"
