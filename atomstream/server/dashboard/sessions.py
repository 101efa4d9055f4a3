"""Who is logged in: sessions of browsers, opened by an API key, kept hashed, alive across a restart."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from atomstream.server.private import write_private

SESSIONS_FILE = "sessions.json"
LIFETIME_S = 14 * 24 * 3600.0
"""A display beside the machine stays logged in over a campaign; a forgotten browser not for ever."""
MAX_SESSIONS = 500


class Session(msgspec.Struct, frozen=True):
    """What is kept of one: hashes (hex SHA-256) of its token and of the key that opened it; UTC in s."""

    token: str
    key: str
    expires: float


class SessionBook:
    """The sessions of one server, in memory and in ``path``, readable by the server's user alone.

    ``key_is_known`` tells whether the key of that hash still opens this server: its sessions end with it.
    """

    def __init__(
        self, path: Path, key_is_known: Callable[[bytes], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._key_is_known = key_is_known
        self._clock = clock
        self._sessions = {one.token: one for one in _read(path)}
        self._changing = threading.Lock()

    def open(self, key_mark: bytes) -> str:
        """Begin a session for the key of that hash; returns its token, which is not kept. Writes to the disk."""
        token = secrets.token_urlsafe(32)
        session = Session(_mark(token), key_mark.hex(), self._clock() + LIFETIME_S)
        with self._changing:
            alive = sorted(filter(self._alive, self._sessions.values()), key=lambda one: one.expires)
            self._keep([*alive[-MAX_SESSIONS + 1 :], session])
        return token

    def knows(self, token: str) -> bool:
        """Whether ``token`` is of a session that goes on.

        Looked up by its hash, so that the time it takes says nothing of any token.
        """
        session = self._sessions.get(_mark(token))
        return session is not None and self._alive(session)

    def close(self, token: str) -> None:
        """End a session; harmless where there is none. Writes to the disk."""
        with self._changing:
            self._keep([one for one in self._sessions.values() if one.token != _mark(token)])

    def _alive(self, session: Session) -> bool:
        return self._clock() < session.expires and self._key_is_known(bytes.fromhex(session.key))

    def _keep(self, sessions: list[Session]) -> None:
        self._sessions = {one.token: one for one in sessions}
        write_private(self._path, msgspec.json.encode(sessions))


def _mark(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> list[Session]:
    # A damaged file only means that browsers log in again.
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Session])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []
