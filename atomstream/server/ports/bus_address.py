"""The address of the message bus (NATS), as users write it, and the arguments of a connection to it.

Secrets come from the environment or from files: a command line can be read by every user of the computer.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from atomstream.config import home_expanded, is_loopback
from atomstream.errors import ConfigError
from atomstream.server.client_tls import client_context
from atomstream.system.log_privacy import hide

USER_VARIABLE: Final = "ATOMSTREAM_BUS_USER"
PASSWORD_VARIABLE: Final = "ATOMSTREAM_BUS_PASSWORD"
CREDENTIALS_VARIABLE: Final = "ATOMSTREAM_BUS_CREDENTIALS"

EXAMPLE: Final = "nats://nats-1.lab.example:4222,nats-2.lab.example:4222"

NAME: Final = "atomstream"
"""The name of a cluster on the bus, unless given."""

_OPTIONS: Final = ("ca", "cert", "key", "insecure", "name", "replicas")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SCHEMES: Final = ("nats", "tls")
_PORT: Final = 4222


@dataclass(frozen=True, slots=True)
class BusAddress:
    """One or several servers of NATS. ``text`` are their addresses without secrets, for messages and connections.

    ``name`` separates several clusters on one NATS. ``replicas`` is on how many of its servers each message is stored:
    1, 3 or 5.
    """

    text: str
    user: str = ""
    password: str = field(default="", repr=False)
    credentials: Path | None = None
    tls: ssl.SSLContext | None = None
    name: str = NAME
    replicas: int = 1

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str]) -> BusAddress:
        """The address in ``url``: ``nats://HOST[:PORT][,HOST[:PORT]...][?OPTION=VALUE&...]``.

        The options are ``ca``, ``cert`` and ``key`` (files), ``insecure=yes``, ``name`` and ``replicas``. Without
        ``replicas``, messages are stored on three servers if the URL has three or more, else on one.

        User and password are those of the URL, else ``$ATOMSTREAM_BUS_USER`` and ``$ATOMSTREAM_BUS_PASSWORD``; or
        ``$ATOMSTREAM_BUS_CREDENTIALS`` names a file with credentials (nsc). To another computer the connection is
        encrypted and the server's certificate checked, unless the URL has ``insecure=yes``.

        Raises:
            ConfigError: the URL, one of its options or a file can't be used.
        """
        first, *others = url.strip().split("?")[0].split(",")
        try:
            parts = urlsplit(first if "://" in first else f"nats://{first}")
            options = dict(parse_qsl(urlsplit(url.strip()).query, keep_blank_values=True))
            hosts = [_host(one if "://" in one else f"nats://{one}") for one in (first, *others)]
        except ConfigError:
            raise
        except ValueError:  # its text may have the password
            raise ConfigError(f"The URL of --bus can't be read; write it like {EXAMPLE}.") from None
        if parts.scheme not in _SCHEMES:
            raise ConfigError(
                f"--bus: {parts.scheme[:20]!r} is not a message bus; NATS is, written like {EXAMPLE}."
            )
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(
                    f"--bus: {name[:40]!r} is not an option of the URL; there are {', '.join(_OPTIONS)}."
                )
        near = all(is_loopback(host) for host, _ in hosts)
        password = parts.password or environment.get(PASSWORD_VARIABLE, "")
        hide(password)
        return cls(
            text=",".join(f"nats://{f'[{host}]' if ':' in host else host}:{port}" for host, port in hosts),
            user=parts.username or environment.get(USER_VARIABLE, ""),
            password=password,
            credentials=_credentials(environment.get(CREDENTIALS_VARIABLE, "").strip()),
            tls=_tls(options, near=near, asked=parts.scheme == "tls"),
            name=_name(options.get("name", NAME)),
            replicas=_replicas(options.get("replicas", "3" if len(hosts) >= 3 else "1")),
        )

    def arguments(self) -> dict[str, Any]:
        """More arguments of ``nats.connect``."""
        found: dict[str, Any] = {}
        if self.credentials is not None:
            found["user_credentials"] = str(self.credentials)
        elif self.user:
            found |= {"user": self.user, "password": self.password}
        elif self.password:
            found["token"] = self.password
        if self.tls is not None:
            found["tls"] = self.tls
        return found


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ConfigError(f"--bus: a host is missing; write it like {EXAMPLE}.")
    return parts.hostname, parts.port or _PORT


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--bus: name={name[:40]!r} is not possible; it has 1 to 40 letters, digits, '-' and '_'."
        )
    return name


def _replicas(text: str) -> int:
    if text not in ("1", "3", "5"):
        raise ConfigError(f"--bus: replicas={text[:20]!r} is not possible; 1, 3 and 5 are.")
    return int(text)


def _credentials(named: str) -> Path | None:
    if not named:
        return None
    path = home_expanded(named)
    if not path.is_file():
        raise ConfigError(f"${CREDENTIALS_VARIABLE}={named}: there is no such file with credentials of NATS.")
    return path


def _tls(options: Mapping[str, str], *, near: bool, asked: bool) -> ssl.SSLContext | None:
    files = {name: options[name] for name in ("ca", "cert", "key") if name in options}
    if options.get("insecure") == "yes":
        if files or asked:
            raise ConfigError(
                "--bus: insecure=yes is for a connection without TLS; leave it or the TLS options out."
            )
        return None
    if near and not files and not asked:
        return None
    return client_context("--bus", files, ("ca", "cert", "key"))
