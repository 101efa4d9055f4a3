"""The browser sessions of one server: tokens, stored as hashes. A session survives a restart of the server."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.own_files import read_plain

SESSIONS_FILE = "sessions.json"

LIFETIME_S = 14 * 24 * 3600.0
"""Seconds until a session expires: long enough for a display that stays on during a growth campaign."""

MAX_SESSIONS = 500
MAX_OF_ONE = 50
"""Sessions of one person or key; one more ends the oldest of them."""


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stored session: SHA-256 (hex) of its token, expiry in Unix s, and whose it is.

    ``holder`` is that of :class:`~atomstream.server.people.rights.Principal`. Version 0.2 wrote ``key`` instead, the
    SHA-256 (hex) of the API key that opened the session.
    """

    token: str
    expires: float
    holder: str = ""
    key: str = ""


class SessionStore:
    """Sessions of one server, in memory and in the file ``path``, which only the server's user can read.

    ``is_valid(holder)`` returns whether the person or key of a session may still sign in; if not, the session has
    ended. The methods that write to the disk block; call them in a thread.
    """

    def __init__(
        self,
        path: Path,
        is_valid: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        file_system: FileSystem = LOCAL,
    ) -> None:
        self._path = path
        self._is_valid = is_valid
        self._clock = clock
        self._file_system = file_system
        self._sessions = {one.token: one for one in _read(path)}
        self._lock = threading.Lock()

    def open(self, holder: str, lifetime_s: float = LIFETIME_S) -> str:
        """Create a session for that person or key; return its token. Only the hash is stored. Blocks."""
        token = secrets.token_urlsafe(32)
        session = Session(mark_of(token), self._clock() + lifetime_s, holder)
        with self._lock:
            alive = sorted(filter(self._alive, self._sessions.values()), key=lambda one: one.expires)
            own = [one for one in alive if one.holder == holder]
            ended = own[: max(0, len(own) - MAX_OF_ONE + 1)]
            kept = [one for one in alive if one not in ended]
            self._store([*kept[-MAX_SESSIONS + 1 :], session])
        return token

    def holder_of(self, token: str) -> str | None:
        """Whose session that token belongs to; None if there is none, or it has ended.

        The look-up uses the hash, so its duration reveals nothing about any token.
        """
        session = self._sessions.get(mark_of(token))
        return session.holder if session is not None and self._alive(session) else None

    def is_open(self, mark: str) -> bool:
        """True if the session with that :func:`mark_of` its token has not ended."""
        session = self._sessions.get(mark)
        return session is not None and self._alive(session)

    def close(self, token: str) -> None:
        """Delete a session; does nothing if there is none. Blocks."""
        with self._lock:
            self._store([one for one in self._sessions.values() if one.token != mark_of(token)])

    def _alive(self, session: Session) -> bool:
        return self._clock() < session.expires and self._is_valid(session.holder)

    def _store(self, sessions: list[Session]) -> None:
        self._sessions = {one.token: one for one in sessions}
        write_private(self._path, msgspec.json.encode(sessions), self._file_system)


def mark_of(token: str) -> str:
    """The hash of a token, under which its session is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> list[Session]:
    # If the file is damaged, browsers have to log in again; nothing else is lost.
    try:
        found = msgspec.json.decode(read_plain(path), type=list[Session])
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [
        one if one.holder else msgspec.structs.replace(one, holder=f"key:{one.key}", key="") for one in found
    ]
