"""Sessions of browsers: opened by a key, stored as hashes, ended by time, by logout and with their key."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from atomstream.server.dashboard.session_store import (
    LIFETIME_S,
    MAX_OF_ONE,
    MAX_SESSIONS,
    SessionStore,
    mark_of,
)
from atomstream.server.documents import FolderDocuments

KEY = "key:" + "01" * 32


def make_store(path: Path, known: set[str] | None = None, clock: list[float] | None = None) -> SessionStore:
    """A session store with keys and time controlled by the test."""
    keys, now = known if known is not None else {KEY}, clock or [1000.0]
    return SessionStore(FolderDocuments(path), keys.__contains__, lambda: now[0])


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    """A session opened by one server is valid for the next one on the same folder."""
    token = make_store(tmp_path).open(KEY)
    assert make_store(tmp_path).holder_of(token)


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
        assert not one.holder_of(first)
        assert one.holder_of(second)


def test_a_session_expires(tmp_path: Path) -> None:
    """A session is valid for its lifetime, and not a second longer."""
    clock = [1000.0]
    store = make_store(tmp_path, clock=clock)
    token = store.open(KEY)
    clock[0] += LIFETIME_S - 1
    assert store.holder_of(token)
    clock[0] += 1
    assert not store.holder_of(token)


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """When a key is removed, its sessions become invalid."""
    keys = {KEY}
    store = make_store(tmp_path, known=keys)
    token = store.open(KEY)
    keys.clear()
    assert not store.holder_of(token)


def test_the_number_of_sessions_is_bounded(tmp_path: Path) -> None:
    """The oldest sessions are removed when there are too many; those of one key do not remove others'."""
    holders = {KEY, *(f"key:{number:064x}" for number in range(MAX_SESSIONS))}
    store = make_store(tmp_path, holders, clock=(clock := [0.0]))
    first = store.open(f"key:{0:064x}")
    tokens = []
    for _ in range(MAX_OF_ONE + 1):
        clock[0] += 1
        tokens.append(store.open(KEY))
    kept = [store.holder_of(token) is not None for token in (first, *tokens[:2], tokens[-1])]
    assert kept == [True, False, True, True]
    for number in range(MAX_SESSIONS - MAX_OF_ONE):
        clock[0] += 1
        store.open(f"key:{number:064x}")
    assert [store.holder_of(token) is not None for token in (first, tokens[1])] == [False, True]


def test_sessions_of_an_earlier_version_stay(tmp_path: Path) -> None:
    """A session that version 0.2 stored for an API key is still valid."""
    earlier = [{"token": mark_of("token"), "key": "01" * 32, "expires": 2000.0}]
    (tmp_path / "sessions.json").write_text(json.dumps(earlier))
    assert make_store(tmp_path).holder_of("token") == KEY


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    """With any content of the file, the server starts, and nobody is logged in."""
    (tmp_path / "sessions.json").write_bytes(secrets.token_bytes(64))
    store = make_store(tmp_path)
    assert not store.holder_of("")
    assert store.holder_of(store.open(KEY))
