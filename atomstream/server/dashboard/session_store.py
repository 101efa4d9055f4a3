"""The browser sessions of one server: tokens, stored as hashes. A session survives a restart of the server."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Hashable

import msgspec

from atomstream.server.documents import Documents

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
    """Sessions of one server, or of the servers of a cluster: in memory, and as the document ``sessions.json``.

    ``is_valid(holder)`` returns whether the person or key of a session may still sign in; if not, the session has
    ended. The methods that read or write the document block; call them in a thread.
    """

    def __init__(
        self,
        documents: Documents,
        is_valid: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._documents = documents
        self._is_valid = is_valid
        self._clock = clock
        self._lock = threading.Lock()
        self._mark: Hashable = None
        self._sessions = _by_token(self._read())

    def open(self, holder: str, lifetime_s: float = LIFETIME_S) -> str:
        """Create a session for that person or key; return its token. Only the hash is stored. Blocks."""
        token = secrets.token_urlsafe(32)
        session = Session(mark_of(token), self._clock() + lifetime_s, holder)

        def add(sessions: list[Session]) -> list[Session]:
            alive = sorted(filter(self._alive, sessions), key=lambda one: one.expires)
            own = [one for one in alive if one.holder == holder]
            ended = own[: max(0, len(own) - MAX_OF_ONE + 1)]
            kept = [one for one in alive if one not in ended]
            return [*kept[-MAX_SESSIONS + 1 :], session]

        self._change(add)
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
        self._change(lambda sessions: [one for one in sessions if one.token != mark_of(token)])

    @property
    def is_shared(self) -> bool:
        """Whether other servers open and close sessions."""
        return self._documents.is_shared

    def refresh(self) -> bool:
        """Read what other servers have changed; True if there was something. Blocks."""
        if not self.is_shared:
            return False
        with self._lock:
            mark = self._documents.mark(SESSIONS_FILE)
            if mark == self._mark:
                return False
            self._sessions, self._mark = _by_token(self._read()), mark
            return True

    def _read(self) -> list[Session]:
        try:
            return _decode(self._documents.read(SESSIONS_FILE))
        except OSError:
            return []

    def _alive(self, session: Session) -> bool:
        return self._clock() < session.expires and self._is_valid(session.holder)

    def _change(self, revise: Callable[[list[Session]], list[Session]]) -> None:
        found: list[Session] = []

        def change(content: bytes | None) -> bytes:
            found[:] = revise(_decode(content))
            return msgspec.json.encode(found)

        with self._lock:
            if self.is_shared:
                self._documents.change(SESSIONS_FILE, change)
                self._sessions = _by_token(found)
            else:  # the sessions in memory count: the file may be damaged
                found = revise(list(self._sessions.values()))
                self._sessions = _by_token(found)
                self._documents.write(SESSIONS_FILE, msgspec.json.encode(found))


def mark_of(token: str) -> str:
    """The hash of a token, under which its session is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _by_token(sessions: list[Session]) -> dict[str, Session]:
    return {one.token: one for one in sessions}


def _decode(content: bytes | None) -> list[Session]:
    # If the document is damaged, browsers have to log in again; nothing else is lost.
    try:
        found = [] if content is None else msgspec.json.decode(content, type=list[Session])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [
        one if one.holder else msgspec.structs.replace(one, holder=f"key:{one.key}", key="") for one in found
    ]
