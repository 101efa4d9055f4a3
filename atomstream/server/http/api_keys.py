"""The server's own API key: made at the first start or given by its settings, stored as a hash in ``keys.json``.

It has all rights, belongs to nobody and never expires. A lab PC with one user needs nothing else. Keys of people and
instruments are in :mod:`atomstream.server.people`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX
from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.log_privacy import get_logger, hide
from atomstream.system.own_files import read_plain

KEYS_FILE = "keys.json"


class StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored key: its hash (hexadecimal SHA-256), the time of its creation (ISO 8601), and its end.

    ``expires`` is Unix time in s, 0 for never: a key that was replaced stays valid for a while.
    """

    sha256: str
    made: str
    expires: float = 0.0


def fingerprint(key: str) -> bytes:
    """The SHA-256 of a key, by which keys are stored and compared.

    A password would need a slow hash. The keys have 256 random bits, so they can't be found by trying, and a slow
    hash would only slow down each request.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def ensure_key(data_dir: Path, file_system: FileSystem = LOCAL) -> str | None:
    """Make the first key of ``data_dir`` and return it, the only time that it is seen; None where one exists."""
    if read_keys(data_dir):
        return None
    key = SERVER_KEY_PREFIX + secrets.token_urlsafe(32)
    _store_keys(data_dir, [_stored(key)], file_system)
    return key


def replace_keys(data_dir: Path, key: str, file_system: FileSystem = LOCAL) -> None:
    """Make ``key`` the only stored key of ``data_dir``: one that it replaced must not come back at a later start."""
    try:
        if [(one.sha256, one.expires) for one in read_keys(data_dir)] == [(fingerprint(key).hex(), 0.0)]:
            return
    except ConfigError:  # a damaged key file is replaced, too
        get_logger("atomstream.server").warning("the damaged key file %s is replaced", data_dir / KEYS_FILE)
    _store_keys(data_dir, [_stored(key)], file_system)


def rotate_server_key(data_dir: Path, overlap_s: float, file_system: FileSystem = LOCAL) -> str:
    """Make another server key and return it; the one before stays valid for ``overlap_s``."""
    key, now = SERVER_KEY_PREFIX + secrets.token_urlsafe(32), time.time()
    ending = [one for one in read_keys(data_dir) if not one.expires or one.expires > now]
    kept = [
        msgspec.structs.replace(one, expires=min(one.expires or now + overlap_s, now + overlap_s))
        for one in ending
    ]
    _store_keys(data_dir, [_stored(key), *(kept if overlap_s > 0 else [])], file_system)
    return key


def revoke_server_keys(data_dir: Path, file_system: FileSystem = LOCAL) -> None:
    """End all server keys. Their hashes stay in the file: without any the next start would make a new key."""
    ended = [msgspec.structs.replace(one, expires=1.0) for one in read_keys(data_dir)]
    _store_keys(data_dir, ended, file_system)


def _stored(key: str) -> StoredKey:
    return StoredKey(sha256=fingerprint(key).hex(), made=datetime.now(UTC).isoformat())


def _store_keys(data_dir: Path, keys: list[StoredKey], file_system: FileSystem) -> None:
    write_private(data_dir / KEYS_FILE, msgspec.json.encode(keys), file_system)


def read_keys(data_dir: Path) -> list[StoredKey]:
    """The stored keys, also those that have expired; raises ConfigError if the file can't be read."""
    path = data_dir / KEYS_FILE
    try:
        keys = msgspec.json.decode(read_plain(path), type=list[StoredKey])
        if all(len(bytes.fromhex(key.sha256)) == hashlib.sha256().digest_size for key in keys):
            return keys
    except FileNotFoundError:
        return []
    except ValueError:
        pass
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(
            f"The key file {path} can't be read ({error}). Remove it to have a new key made at the next start."
        ) from None
    raise ConfigError(f"The key file {path} has a hash that is none. Remove the file to have a new key made.")


class KeyRing:
    """The valid server keys: those stored in its data folder, or the one from its settings."""

    def __init__(
        self, keys: list[StoredKey], data_dir: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.expires) for key in keys]
        self._data_dir = data_dir
        self._clock = clock
        self._signature = self._stat()
        self._hidden: set[str] = set()

    @classmethod
    def load(cls, data_dir: Path, fixed: str | None) -> KeyRing:
        """Only ``fixed`` if it is given; otherwise the keys stored in ``data_dir``, also when the file changes."""
        return cls([_stored(fixed)]) if fixed else cls(read_keys(data_dir), data_dir)

    def refresh(self) -> bool:
        """Read the file again if it was changed; True if it was. While it can't be read, nothing changes. Blocks."""
        signature = self._stat()
        if self._data_dir is None or signature == self._signature:
            return False
        try:
            keys = read_keys(self._data_dir)
        except ConfigError as error:
            get_logger("atomstream.server").warning("%s", error)
            return False
        finally:
            self._signature = signature
        if not keys:  # the file was removed; the next start makes another key
            return False
        self._keys = [(bytes.fromhex(key.sha256), key.expires) for key in keys]
        return True

    def has_news(self) -> bool:
        """Whether the file was changed since it was read. Takes some microseconds."""
        return self._stat() != self._signature

    def _stat(self) -> tuple[int, int, int] | None:
        if self._data_dir is None:
            return None
        try:
            found = os.stat(self._data_dir / KEYS_FILE, follow_symlinks=False)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def opens(self, presented: str) -> bool:
        """True if ``presented`` is a valid key. The time does not depend on where two keys differ."""
        if not self.knows(fingerprint(presented)):
            return False
        if presented not in self._hidden:
            self._hidden.add(presented)
            hide(presented)  # of a key from an earlier start, the log's filter does not know the value before
        return True

    def knows_id(self, key_id: str) -> bool:
        """The same for the id of a key, the first 8 digits of its fingerprint."""
        return any(known.hex()[:8] == key_id and self.knows(known) for known, _ in self._keys)

    def knows(self, mark: bytes) -> bool:
        """The same for the :func:`fingerprint` of a key."""
        now = self._clock()
        # A sum, because `any` stops at the first match, and its duration would reveal which key matched.
        return (
            sum(
                hmac.compare_digest(mark, known) and not 0.0 < expires <= now for known, expires in self._keys
            )
            > 0
        )
