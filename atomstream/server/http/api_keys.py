"""The server's own API key: made at the first start or given by its settings, stored as a hash in ``keys.json``.

It has all rights, belongs to nobody and never expires. A lab PC with one user needs nothing else. Keys of people and
instruments are in :mod:`atomstream.server.people`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX
from atomstream.server.documents import Documents, documents_in
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.log_privacy import get_logger, hide

log = get_logger("atomstream.server")

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


def ensure_key(place: Path | Documents, file_system: FileSystem = LOCAL) -> str | None:
    """Make the first key of ``place`` and return it, the only time that it is seen; None where one exists.

    ``place`` is a data folder, or the documents that several servers share: of them, one makes the key.
    """
    key, made = SERVER_KEY_PREFIX + secrets.token_urlsafe(32), list[str]()

    def revise(content: bytes | None) -> bytes | None:
        if _decode(content, documents):
            return None
        made.append(key)
        return msgspec.json.encode([_stored(key)])

    documents = documents_in(place, file_system)
    _change(documents, revise)
    return made[-1] if made else None


def replace_keys(place: Path | Documents, key: str, file_system: FileSystem = LOCAL) -> None:
    """Make ``key`` the only stored key of ``place``: one that it replaced must not come back at a later start."""
    documents = documents_in(place, file_system)

    def revise(content: bytes | None) -> bytes | None:
        try:
            found = [(one.sha256, one.expires) for one in _decode(content, documents)]
        except ConfigError:  # a damaged key file is replaced, too
            log.warning("the damaged key file %s is replaced", documents.place(KEYS_FILE))
            found = []
        if found == [(fingerprint(key).hex(), 0.0)]:
            return None
        return msgspec.json.encode([_stored(key)])

    try:
        documents.change(KEYS_FILE, revise)
    except OSError:  # it can't be read; the next line raises if it can't be written either
        documents.write(KEYS_FILE, msgspec.json.encode([_stored(key)]))


def rotate_server_key(place: Path | Documents, overlap_s: float, file_system: FileSystem = LOCAL) -> str:
    """Make another server key and return it; the one before stays valid for ``overlap_s``."""
    key, now = SERVER_KEY_PREFIX + secrets.token_urlsafe(32), time.time()

    def revise(content: bytes | None) -> bytes:
        ending = [one for one in _decode(content, documents) if not one.expires or one.expires > now]
        kept = [
            msgspec.structs.replace(one, expires=min(one.expires or now + overlap_s, now + overlap_s))
            for one in ending
        ]
        return msgspec.json.encode([_stored(key), *(kept if overlap_s > 0 else [])])

    documents = documents_in(place, file_system)
    _change(documents, revise)
    return key


def revoke_server_keys(place: Path | Documents, file_system: FileSystem = LOCAL) -> None:
    """End all server keys. Their hashes stay in the file: without any the next start would make a new key."""

    def revise(content: bytes | None) -> bytes:
        return msgspec.json.encode(
            [msgspec.structs.replace(one, expires=1.0) for one in _decode(content, documents)]
        )

    documents = documents_in(place, file_system)
    _change(documents, revise)


def _stored(key: str) -> StoredKey:
    return StoredKey(sha256=fingerprint(key).hex(), made=datetime.now(UTC).isoformat())


def read_keys(place: Path | Documents) -> list[StoredKey]:
    """The stored keys, also those that have expired; raises ConfigError if the file can't be read."""
    documents = documents_in(place)
    try:
        return _decode(documents.read(KEYS_FILE), documents)
    except OSError as error:
        raise _unreadable(documents, error) from None


def _change(documents: Documents, revise: Callable[[bytes | None], bytes | None]) -> None:
    """Change the stored keys; raises ConfigError if the file can't be read, OSError if it can't be written."""
    read_keys(documents)
    documents.change(KEYS_FILE, revise)


def _decode(content: bytes | None, documents: Documents) -> list[StoredKey]:
    if content is None:
        return []
    try:
        keys = msgspec.json.decode(content, type=list[StoredKey])
        if all(len(bytes.fromhex(key.sha256)) == hashlib.sha256().digest_size for key in keys):
            return keys
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _unreadable(documents, error) from None
    except ValueError:
        pass
    raise ConfigError(
        f"The key file {documents.place(KEYS_FILE)} has an invalid hash. Remove it to have a new key made."
    )


def _unreadable(documents: Documents, error: Exception) -> ConfigError:
    return ConfigError(
        f"The key file {documents.place(KEYS_FILE)} can't be read ({error}). Remove it to have a new key made at the "
        "next start."
    )


class KeyRing:
    """The valid server keys: those that are stored, or the one from its settings."""

    def __init__(
        self,
        keys: list[StoredKey],
        documents: Documents | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.expires) for key in keys]
        self._documents = documents
        self._clock = clock
        self._signature: Hashable = None
        self._hidden: set[str] = set()

    @classmethod
    def load(cls, place: Path | Documents, fixed: str | None) -> KeyRing:
        """Only ``fixed`` if it is given; otherwise the keys stored in ``place``, also when they change. Blocks."""
        if fixed:
            return cls([_stored(fixed)])
        documents = documents_in(place)
        signature = documents.mark(KEYS_FILE)  # before the keys: a change between both is read later
        made = cls(read_keys(documents), documents)
        made._signature = signature
        return made

    def refresh(self) -> bool:
        """Read the keys again if they were changed; True if so. While they can't be read, nothing changes. Blocks."""
        signature = self._mark()
        if self._documents is None or signature == self._signature:
            return False
        try:
            keys = read_keys(self._documents)
        except ConfigError as error:
            log.warning("%s", error)
            keys = []
        if keys:  # else the file was removed, or can't be read; the next start makes another key
            self._keys = [(bytes.fromhex(key.sha256), key.expires) for key in keys]
        self._signature = signature  # last: until then has_news() is True for other threads
        return bool(keys)

    def has_news(self) -> bool:
        """Whether the keys may have been changed since they were read. Takes some microseconds."""
        if self._documents is not None and self._documents.is_shared:
            return True
        return self._mark() != self._signature

    def _mark(self) -> Hashable:
        return None if self._documents is None else self._documents.mark(KEYS_FILE)

    def opens(self, presented: str) -> bool:
        """True if ``presented`` is a valid key. The time does not depend on where two keys differ."""
        if not self.has(fingerprint(presented)):
            return False
        if presented not in self._hidden:
            self._hidden.add(presented)
            hide(presented)  # after a restart only hashes are known: the log's filter gets the value now
        return True

    def has_id(self, key_id: str) -> bool:
        """True if a valid key has this id, the first 8 digits of its fingerprint."""
        return any(known.hex()[:8] == key_id and self.has(known) for known, _ in self._keys)

    def has(self, mark: bytes) -> bool:
        """True if a valid key has this :func:`fingerprint`."""
        now = self._clock()
        # A sum, because `any` stops at the first match, and its duration would reveal which key matched.
        return (
            sum(
                hmac.compare_digest(mark, known) and not 0.0 < expires <= now for known, expires in self._keys
            )
            > 0
        )
