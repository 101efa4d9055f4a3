"""The address of a PostgreSQL database, as users write it, and what its two drivers need of it.

Secrets come from the environment or from files: a command line can be read by every user of the computer.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from atomstream.config import home_expanded, is_loopback
from atomstream.errors import ConfigError
from atomstream.server.client_tls import client_context
from atomstream.system.log_privacy import hide

PASSWORD_VARIABLE: Final = "ATOMSTREAM_CATALOGUE_PASSWORD"
PASSWORD_FILE_VARIABLE: Final = "ATOMSTREAM_CATALOGUE_PASSWORD_FILE"

EXAMPLE: Final = "postgresql://atomstream@db.lab.example/atomstream"

CONNECT_S: Final = 5.0
"""Longest time for a new connection, in s."""
COMMAND_S: Final = 10.0
"""Longest time for one statement, in s."""

_PORT: Final = 5432
_MODES: Final = ("disable", "verify-ca", "verify-full")
_OPTIONS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey", "host")


def is_postgres(url: str) -> bool:
    """Whether ``url`` is one of a PostgreSQL database, also a wrong one."""
    return url.strip().lower().startswith(("postgresql:", "postgres:", "postgresql+"))


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """One database. ``text`` is its URL without the password, for messages.

    ``host`` is a name, an IP address or the folder of a Unix socket. ``tls`` is None for a connection without TLS.
    """

    text: str
    host: str
    port: int
    database: str
    user: str
    tls: ssl.SSLContext | None
    password: str = field(default="", repr=False)
    password_file: Path | None = None

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str]) -> PostgresAddress:
        """The address in ``url``: ``postgresql://USER@HOST[:PORT]/DATABASE[?sslmode=...&sslrootcert=FILE...]``.

        The password is that of the URL, else ``$ATOMSTREAM_CATALOGUE_PASSWORD``, else the content of the file
        ``$ATOMSTREAM_CATALOGUE_PASSWORD_FILE``, which is read again for each connection. To another computer the
        connection is encrypted and the server's certificate checked (``sslmode=verify-full``) unless the URL has
        ``sslmode=disable``.

        Raises:
            ConfigError: the URL, one of its options or a file of a certificate can't be used.
        """
        parts = _split(url)
        host = str(parts.query.get("host", "") or parts.host or "")
        if not host or not parts.username or not parts.database:
            raise ConfigError(
                f"The catalogue {_shown(parts)} lacks a host, a user or a database; write it like {EXAMPLE}."
            )
        named = environment.get(PASSWORD_FILE_VARIABLE, "").strip()
        password = str(parts.password or "") or environment.get(PASSWORD_VARIABLE, "")
        hide(password)
        address = cls(
            text=_shown(parts),
            host=host,
            port=parts.port or _PORT,
            database=parts.database,
            user=parts.username,
            tls=_tls(parts.query, host),
            password=password,
            password_file=None if password or not named else home_expanded(named),
        )
        address.secret()  # a missing file is an error now, and not at the first request
        return address

    def secret(self) -> str:
        """The password, empty for none; raises ConfigError if its file can't be read."""
        if self.password_file is None:
            return self.password
        try:
            secret = self.password_file.read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The file {self.password_file} with the password of the catalogue "
                f"(${PASSWORD_FILE_VARIABLE}) can't be read: {getattr(error, 'strerror', None) or error}."
            ) from None
        hide(secret)
        return secret

    def url(self, driver: str) -> URL:
        """The URL for SQLAlchemy, without a password and options."""
        host = "" if self.host.startswith("/") else self.host
        return URL.create(
            f"postgresql+{driver}", self.user, host=host, port=self.port, database=self.database
        )

    def asyncpg_arguments(self) -> dict[str, Any]:
        """More arguments of ``asyncpg.connect``; ``timeout`` and ``command_timeout`` are in s."""
        return {
            "host": self.host,
            "ssl": self.tls or False,
            "timeout": CONNECT_S,
            "command_timeout": COMMAND_S,
            "server_settings": {"application_name": "atomstream"},
        }

    def pg8000_arguments(self) -> dict[str, Any]:
        """More arguments of ``pg8000.dbapi.connect``; ``timeout`` is that of the socket in s."""
        found: dict[str, Any] = {
            "ssl_context": self.tls or False,
            "timeout": COMMAND_S,
            "application_name": "atomstream",
        }
        if self.host.startswith("/"):
            found["unix_sock"] = f"{self.host}/.s.PGSQL.{self.port}"
        return found


def _split(url: str) -> URL:
    try:
        parts = make_url(url.strip())
        port = parts.port
    except (ArgumentError, ValueError):  # their texts may have the password
        raise ConfigError(f"The URL of the catalogue can't be read; write it like {EXAMPLE}.") from None
    if parts.drivername not in ("postgresql", "postgres"):
        kind = parts.drivername[:40]
        raise ConfigError(
            f"A catalogue of the kind {kind!r} is not known: leave it out for SQLite in the data folder, or write "
            f"it like {EXAMPLE}."
        )
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f"The port {port} of the catalogue is not possible; 1 to 65535 are.")
    unknown = sorted(set(parts.query) - set(_OPTIONS))
    if unknown:
        raise ConfigError(
            f"The option {unknown[0][:40]!r} in the URL of the catalogue is not known; there are "
            f"{', '.join(_OPTIONS)}."
        )
    return parts


def _shown(parts: URL) -> str:
    """The URL without password and options."""
    shown = URL.create(
        parts.drivername, parts.username, host=parts.host, port=parts.port, database=parts.database
    )
    return shown.render_as_string()


def _tls(query: Mapping[str, Any], host: str) -> ssl.SSLContext | None:
    near = host.startswith("/") or is_loopback(host)
    files = {name: str(query[name]) for name in ("sslrootcert", "sslcert", "sslkey") if name in query}
    mode = str(query.get("sslmode", "disable" if near and not files else "verify-full"))
    if mode not in _MODES:
        raise ConfigError(
            f"sslmode={mode[:40]!r} of the catalogue is not possible; it is one of {', '.join(_MODES)}. The others of "
            "PostgreSQL do not check who answers."
        )
    if mode == "disable":
        return None
    context = client_context("--catalogue", files, ("sslrootcert", "sslcert", "sslkey"))
    context.check_hostname = mode == "verify-full"
    return context
