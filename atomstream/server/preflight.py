"""What a start of a server with given settings would do, and what prevents it: ``atomstream serve --check``."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atomstream.counted import counted
from atomstream.errors import ConfigError
from atomstream.server.app import ROUTES
from atomstream.server.data_dir import LOCK_FILE, check_cache, lock_data_dir
from atomstream.server.disk_errors import LEAST_FREE
from atomstream.server.http.api_keys import KEYS_FILE, KeyRing
from atomstream.server.http.certificate import load_certificate
from atomstream.server.http.path_prefix import check_prefix
from atomstream.server.oidc_settings import OidcSettings, check_installed
from atomstream.server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; ``text`` describes it in a sentence."""

    name: str
    ok: bool
    text: str


def check_start(settings: ServerSettings) -> list[Finding]:
    """Check data folder, free space, key, certificate, port, store and sign-in. Blocks; nothing is made or changed.

    (Exception: a few small objects in a store are written and removed again.)
    """
    checks: tuple[tuple[str, Callable[[ServerSettings], str]], ...] = (
        ("data folder", _data_folder),
        ("free space", _free_space),
        ("API key", _api_key),
        ("certificate", _certificate),
        ("address", _address),
        *((("store", partial(_store, settings.store)),) if settings.store is not None else ()),
        *((("sign-in", partial(_sign_in, settings.oidc)),) if settings.oidc is not None else ()),
    )
    found = []
    for name, check in checks:
        try:
            found.append(Finding(name, True, check(settings)))
        except (ConfigError, OSError) as error:
            found.append(Finding(name, False, str(error)))
    return found


def _store(url: str, settings: ServerSettings) -> str:
    from atomstream.server.ports.store_url import check_store, open_store

    store = open_store(url)
    try:
        check_store(store)
        check_cache(settings.data_dir, store.name)
        return f"{store.name} has all that is needed"
    finally:
        store.close()


def _sign_in(oidc: OidcSettings, _settings: ServerSettings) -> str:
    check_installed()
    from atomstream.server.http.oidc_check import check_provider

    return check_provider(oidc)


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _data_folder(settings: ServerSettings) -> str:
    folder, existing = settings.data_dir, _existing(settings.data_dir)
    for one in {existing, settings.streams_dir} if settings.streams_dir.exists() else {existing}:
        if not one.is_dir():
            raise ConfigError(f"{one} is not a folder.")
        if not os.access(one, os.W_OK | os.X_OK):
            raise ConfigError(f"This user may not write to {one}.")
    if existing != folder:
        return f"{folder} would be made"
    if (folder / LOCK_FILE).exists():
        lock_data_dir(folder).release()
    streams = sum(1 for _ in settings.streams_dir.iterdir()) if settings.streams_dir.exists() else 0
    return f"{folder}, with {counted(streams, 'stream')}, is not used by another server"


def _free_space(settings: ServerSettings) -> str:
    free = shutil.disk_usage(_existing(settings.data_dir)).free
    if free < LEAST_FREE:
        raise ConfigError(f"The disk of {settings.data_dir} is full: {free / 1e6:.1f} MB are free.")
    return f"{free / 1e9:.1f} GB on the disk of the data folder"


def _api_key(settings: ServerSettings) -> str:
    if settings.api_key:
        return "as given; it would replace stored ones"
    if settings.catalogue is not None:
        return "that in the catalogue, or a new one at the first start of all servers"
    KeyRing.load(settings.data_dir, None)
    if (settings.data_dir / KEYS_FILE).exists():
        return "that of an earlier start"
    return "a new one would be made, and shown once"


def _certificate(settings: ServerSettings) -> str:
    if settings.tls_cert is None and settings.tls != "self-signed":
        return "none: plain http"
    if settings.tls_cert is None:
        return "a self-signed one, made at the first start"
    certificate = load_certificate(settings)
    assert certificate is not None
    return f"SHA-256 {certificate.fingerprint}"


def _address(settings: ServerSettings) -> str:
    check_prefix(ROUTES, settings.path_prefix)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # as asyncio does; on Windows it would allow a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except UnicodeError:
        raise ConfigError(f"host={settings.host!r} is neither an address nor a name of a computer.") from None
    except OSError as error:
        raise ConfigError(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}."
        ) from None
    return f"{settings.host} port {settings.port or 'chosen by the system'} is free"
