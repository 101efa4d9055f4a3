"""Passwords of people: hashed by argon2id, in a separate file, so that a removed person's hash is deleted."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from atomstream.errors import ConfigError
from atomstream.protocol import normalized_name
from atomstream.server.documents import Documents, documents_in
from atomstream.system.files import LOCAL, FileSystem

if TYPE_CHECKING:
    from argon2 import PasswordHasher

PASSWORDS_FILE: Final = "passwords.json"

MIN_PASSWORD_CHARS: Final = 12
MAX_PASSWORD_CHARS: Final = 1024

MEMORY_KIB: Final = 32 * 1024
"""Memory of one check in KiB."""
PASSES: Final = 3
"""The parameters of argon2id. OWASP's least is 19 MiB with 2 passes; a check takes some 50 ms of one core."""


def checked_password(password: str, name: str) -> str:
    """``password``, if it is good enough for the person ``name``.

    Raises:
        ConfigError: it has fewer than 12 or more than 1024 characters, few different ones, or is the name.
    """
    if len(password) < MIN_PASSWORD_CHARS:
        raise ConfigError(
            f"The password has {len(password)} characters; at least {MIN_PASSWORD_CHARS} are needed. "
            "Some unrelated words with blanks between them are good."
        )
    if len(password) > MAX_PASSWORD_CHARS:
        raise ConfigError(f"The password has more than {MAX_PASSWORD_CHARS} characters.")
    if len(set(password)) < 5:
        raise ConfigError("The password has fewer than 5 different characters.")
    if normalized_name(password) == normalized_name(name):
        raise ConfigError("The password is the name.")
    return password


@cache
def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher, Type
    except ModuleNotFoundError:
        raise ConfigError(
            "Passwords need the package argon2-cffi: pip install 'atomstream[server]'."
        ) from None
    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1, type=Type.ID)


@cache
def _dummy_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with its salt and parameters. Takes some 50 ms; call it in a thread."""
    return _hasher().hash(password.encode("utf-8", "surrogatepass"))


def is_password(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the one of the hash ``stored``. Takes some 50 ms; call it in a thread.

    Without a hash (None) it is False, after the same time: so the duration of a sign-in does not show which people
    exist.
    """
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        _hasher().verify(stored or _dummy_hash(), password.encode("utf-8", "surrogatepass"))
    except (Argon2Error, InvalidHashError):
        return False
    return stored is not None


class PasswordFile:
    """The hashes by the ids of people, in ``passwords.json``. Blocks; the caller holds the lock of ``people.jsonl``."""

    def __init__(self, place: Path | Documents, file_system: FileSystem = LOCAL) -> None:
        self._documents = documents_in(place, file_system)

    def read(self) -> dict[str, str]:
        """All hashes; none if there is no file.

        Raises:
            ConfigError: the file is damaged.
        """
        try:
            return self._decode(self._documents.read(PASSWORDS_FILE))
        except OSError as error:
            raise self._damaged(error) from None

    def put(self, user_id: str, password_hash: str | None) -> None:
        """Store or (None) remove a person's hash."""
        self.read()  # raises the error that names a file which can't be read

        def revise(content: bytes | None) -> bytes | None:
            hashes = self._decode(content)
            if password_hash is not None:
                hashes[user_id] = password_hash
            elif hashes.pop(user_id, None) is None:
                return None
            return msgspec.json.encode(hashes)

        self._documents.change(PASSWORDS_FILE, revise)

    def _decode(self, content: bytes | None) -> dict[str, str]:
        try:
            return {} if content is None else msgspec.json.decode(content, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"The file of passwords {self._documents.place(PASSWORDS_FILE)} can't be read ({error}). Remove it, and "
            "set the passwords again with: atomstream users set NAME --password"
        )
