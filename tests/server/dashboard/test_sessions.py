"""Sessions of browsers: opened by a key, stored as hashes, ended by time, by logout and with their key."""

from __future__ import annotations

import secrets
from pathlib import Path

from atomstream.server.dashboard.sessions import LIFETIME_S, MAX_SESSIONS, SessionStore

KEY = b"\x01" * 32


def make_store(path: Path, known: set[bytes] | None = None, clock: list[float] | None = None) -> SessionStore:
    """A session store with keys and time controlled by the test."""
    keys, now = known if known is not None else {KEY}, clock or [1000.0]
    return SessionStore(path / "sessions.json", keys.__contains__, lambda: now[0])


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    """A session opened by one server is valid for the next one on the same folder."""
    token = make_store(tmp_path).open(KEY)
    assert make_store(tmp_path).knows(token)


def test_tokens_are_kept_hashed(tmp_path: Path) -> None:
    """The file contains nothing that opens a session, and only its owner can read it."""
    token = make_store(tmp_path).open(KEY)
    file = tmp_path / "sessions.json"
    assert token.encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_a_session_ends_by_logout(tmp_path: Path) -> None:
    """After the logout the token is invalid, here and after a restart; other sessions stay."""
    store = make_store(tmp_path)
    first, second = store.open(KEY), store.open(KEY)
    store.close(first)
    for one in (store, make_store(tmp_path)):
        assert not one.knows(first)
        assert one.knows(second)


def test_a_session_expires(tmp_path: Path) -> None:
    """A session is valid for its lifetime, and not a second longer."""
    clock = [1000.0]
    store = make_store(tmp_path, clock=clock)
    token = store.open(KEY)
    clock[0] += LIFETIME_S - 1
    assert store.knows(token)
    clock[0] += 1
    assert not store.knows(token)


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """When a key is removed, its sessions become invalid."""
    keys = {KEY}
    store = make_store(tmp_path, known=keys)
    token = store.open(KEY)
    keys.clear()
    assert not store.knows(token)


def test_the_number_of_sessions_is_bounded(tmp_path: Path) -> None:
    """The oldest sessions are removed when there are too many."""
    store = make_store(tmp_path, clock=(clock := [0.0]))
    tokens = []
    for _ in range(MAX_SESSIONS + 1):
        clock[0] += 1
        tokens.append(store.open(KEY))
    assert [store.knows(token) for token in (*tokens[:2], tokens[-1])] == [False, True, True]


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    """With any content of the file, the server starts, and nobody is logged in."""
    (tmp_path / "sessions.json").write_bytes(secrets.token_bytes(64))
    store = make_store(tmp_path)
    assert not store.knows("")
    assert store.knows(store.open(KEY))
