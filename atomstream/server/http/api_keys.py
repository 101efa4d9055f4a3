"""API keys: stored as hashes, compared in constant time, never logged; and the middleware that checks them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.errors import ConfigError
from atomstream.protocol import API_KEY_HEADER, SERVER_KEY_PREFIX
from atomstream.server.http.access import Access, required_access
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.responses import HttpError
from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.log_privacy import get_logger, hide
from atomstream.system.own_files import read_plain

KEYS_FILE = "keys.json"


class StoredKey(msgspec.Struct, frozen=True):
    """A stored key: its hash (hexadecimal SHA-256) and the time of its creation (ISO 8601)."""

    sha256: str
    made: str


def fingerprint(key: str) -> bytes:
    """The SHA-256 of a key, by which keys are stored and compared.

    A password would need a slow hash. The keys have 256 random bits, so they can't be found by trying, and a slow
    hash would only slow down each request.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def ensure_key(data_dir: Path, file_system: FileSystem = LOCAL) -> str | None:
    """Make the first key of ``data_dir`` and return it, the only time that it is seen; None where one exists."""
    if _read_keys(data_dir):
        return None
    key = SERVER_KEY_PREFIX + secrets.token_urlsafe(32)
    _store_key(data_dir, key, file_system)
    return key


def replace_keys(data_dir: Path, key: str, file_system: FileSystem = LOCAL) -> None:
    """Make ``key`` the only stored key of ``data_dir``: one that it replaced must not come back at a later start."""
    try:
        if [stored.sha256 for stored in _read_keys(data_dir)] == [fingerprint(key).hex()]:
            return
    except ConfigError:  # a damaged key file is replaced, too
        get_logger("atomstream.server").warning("the damaged key file %s is replaced", data_dir / KEYS_FILE)
    _store_key(data_dir, key, file_system)


def _store_key(data_dir: Path, key: str, file_system: FileSystem) -> None:
    stored = StoredKey(sha256=fingerprint(key).hex(), made=datetime.now(UTC).isoformat())
    write_private(data_dir / KEYS_FILE, msgspec.json.encode([stored]), file_system)


def _read_keys(data_dir: Path) -> list[StoredKey]:
    path = data_dir / KEYS_FILE
    try:
        return msgspec.json.decode(read_plain(path), type=list[StoredKey])
    except FileNotFoundError:
        return []
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(
            f"The key file {path} can't be read ({error}). Remove it to have a new key made at the next start."
        ) from None


class KeyRing:
    """The valid keys of a server: those stored in its data folder, or the one from its settings."""

    def __init__(self, fingerprints: list[bytes]) -> None:
        self._fingerprints = fingerprints
        self._hidden: set[str] = set()

    @classmethod
    def load(cls, data_dir: Path, fixed: str | None) -> KeyRing:
        """Only ``fixed`` if it is given; otherwise the keys stored in ``data_dir``."""
        if fixed:
            return cls([fingerprint(fixed)])
        try:
            return cls([bytes.fromhex(key.sha256) for key in _read_keys(data_dir)])
        except ValueError:
            raise ConfigError(
                f"The key file {data_dir / KEYS_FILE} has a hash that is none. Remove the file to have a new key made."
            ) from None

    def opens(self, presented: str) -> bool:
        """True if ``presented`` is a valid key. The time does not depend on where two keys differ."""
        if not self.knows(fingerprint(presented)):
            return False
        if presented not in self._hidden:
            self._hidden.add(presented)
            hide(presented)  # of a key from an earlier start, the log's filter does not know the value before
        return True

    def knows(self, mark: bytes) -> bool:
        """The same for the :func:`fingerprint` of a key."""
        # A sum, because `any` stops at the first match, and its duration would reveal which key matched.
        return sum(hmac.compare_digest(mark, known) for known in self._fingerprints) > 0


def require_access(
    keys: KeyRing, limiter: GuessLimiter, has_session: Callable[[web.Request], bool] = lambda _: False
) -> Any:
    """A middleware that refuses requests without the right that their handler needs; unknown paths need a key.

    ``has_session`` is called for requests without a key, if their handler accepts browser sessions. ``limiter``
    counts wrong keys.
    """

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        right = required_access(request.match_info.handler)
        key = request.headers.get(API_KEY_HEADER, "").strip()
        by_session = right is Access.BROWSER and not key and has_session(request)
        if right is not Access.PUBLIC and not by_session:
            if not key:
                raise HttpError(401, f"An API key is needed: send it in the header {API_KEY_HEADER}.")
            if not keys.opens(key):
                raise await limiter.refuse(
                    request.remote,
                    key,
                    f"{request.method[:16]} {request.path[:64]!r}",
                    "The API key is wrong: this server does not know it.",
                )
        return await handler(request)

    return check_key
