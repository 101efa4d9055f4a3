"""Opening a store by its URL: ``s3://BUCKET/PREFIX?endpoint=...``, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from atomstream.config import home_expanded, is_loopback
from atomstream.errors import ConfigError
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store import Store, StoreUnavailableError

_OPTIONS: Final = ("endpoint", "region", "ca", "insecure")
_EXAMPLE: Final = "such as s3://rheed/lab?endpoint=https://s3.lab.example"


def open_store(url: str) -> Store:
    """The store at ``url``; nothing is sent yet.

    A folder is a path or ``file:///path``. For S3, ``endpoint`` is the server's address (without it AWS), ``region``
    its region, ``ca`` a file with the certificate of its authority. ``insecure=yes`` allows ``http://`` to another
    computer, where others can read what is sent.

    Raises:
        ConfigError: the URL is not possible, or ``atomstream[cluster]`` is not installed.
    """
    parts = _split(url)
    if parts.scheme == "s3":
        return _open_s3(url)
    if parts.scheme == "file":
        return _open_folder(Path(parts.path))
    if "://" in url:
        raise ConfigError(
            f"--store {url.split('?')[0]!r}: the store is a folder or an S3 bucket, {_EXAMPLE}."
        )
    return _open_folder(Path(url))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is none
    except ValueError:  # its text may have a secret
        raise ConfigError(f"--store: the URL can't be read; write it {_EXAMPLE}.") from None
    return parts


def _open_folder(folder: Path) -> Store:
    try:
        return LocalStore(home_expanded(folder).absolute())
    except OSError as error:
        raise ConfigError(f"--store {folder}: the folder can't be used: {error.strerror or error}.") from None


def _open_s3(url: str) -> Store:
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "--store: the URL has keys in it, which others can see. Give them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment."
        )
    if not parts.hostname or parts.netloc != parts.netloc.strip():
        raise ConfigError(f"--store {url.split('?')[0]!r} has no bucket; write it {_EXAMPLE}.")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(
                f"--store: {name!r} is not an option of the URL; there are {', '.join(_OPTIONS)}."
            )
    endpoint = options.get("endpoint")
    _check_endpoint(endpoint, insecure=options.get("insecure") == "yes")
    authority = options.get("ca")
    try:
        from atomstream.server.ports.s3_store import S3Store
    except ImportError:
        raise ConfigError('--store s3://... needs obstore: pip install "atomstream[cluster]".') from None
    try:
        return S3Store(
            parts.netloc,
            parts.path,
            endpoint=endpoint,
            region=options.get("region"),
            authority=None if authority is None else Path(authority),
        )
    except OSError as error:
        raise ConfigError(
            f"--store: the file ca={authority} can't be read: {error.strerror or error}."
        ) from None
    except Exception as error:  # obstore has its own types for each setting
        raise ConfigError(f"--store {url.split('?')[0]!r} can't be used: {error}.") from None


def _check_endpoint(endpoint: str | None, *, insecure: bool) -> None:
    if endpoint is None:
        return
    parts = _split(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--store: endpoint={endpoint!r} is not an address, {_EXAMPLE}.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--store: the endpoint has a password in it, which others can see; leave it out.")
    if parts.scheme == "http" and not (insecure or is_loopback(parts.hostname)):
        raise ConfigError(
            f"--store: {parts.hostname} is another computer, and others on the network can read what is sent to "
            f"http://. Use https://, or allow it with insecure=yes in the URL."
        )


def check_store(store: Store) -> None:
    """Prove with a few small objects, removed afterwards, that the store can be relied on. Blocks.

    Raises:
        ConfigError: it can't be reached, or lacks a condition without which frames would be lost or mixed.
    """
    from atomstream.server.ports.store_check import missing_abilities

    try:
        missing = missing_abilities(store)
    except StoreUnavailableError as error:
        raise ConfigError(f"{error} Nothing was started.") from None
    if missing:
        raise ConfigError(
            f"The store {store.name} can't be used, because it {'; it '.join(missing)}. Nothing was stored in it."
        )
