"""Sessions of browsers: opened by a key, kept hashed, ended by time, by hand and with their key."""

from __future__ import annotations

import secrets
from pathlib import Path

from atomstream.server.dashboard.sessions import LIFETIME_S, MAX_SESSIONS, SessionStore

KEY = b"\x01" * 32


def make_book(path: Path, known: set[bytes] | None = None, clock: list[float] | None = None) -> SessionStore:
    """A book whose keys and time the test holds."""
    keys, now = known if known is not None else {KEY}, clock or [1000.0]
    return SessionStore(path / "sessions.json", keys.__contains__, lambda: now[0])


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    """What one server opened, the next one on the same folder knows."""
    token = make_book(tmp_path).open(KEY)
    assert make_book(tmp_path).knows(token)


def test_tokens_are_kept_hashed(tmp_path: Path) -> None:
    """The file holds nothing that opens a session, and only its owner reads it."""
    token = make_book(tmp_path).open(KEY)
    file = tmp_path / "sessions.json"
    assert token.encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_a_session_ends_by_hand(tmp_path: Path) -> None:
    """After the log-out the token opens nothing, here and after a restart; others go on."""
    book = make_book(tmp_path)
    first, second = book.open(KEY), book.open(KEY)
    book.close(first)
    for one in (book, make_book(tmp_path)):
        assert not one.knows(first)
        assert one.knows(second)


def test_a_session_ends_with_its_time(tmp_path: Path) -> None:
    """It lives for its lifetime, and not a second longer."""
    clock = [1000.0]
    book = make_book(tmp_path, clock=clock)
    token = book.open(KEY)
    clock[0] += LIFETIME_S - 1
    assert book.knows(token)
    clock[0] += 1
    assert not book.knows(token)


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """A key that no longer opens the server takes its sessions with it."""
    keys = {KEY}
    book = make_book(tmp_path, known=keys)
    token = book.open(KEY)
    keys.clear()
    assert not book.knows(token)


def test_the_book_does_not_grow_for_ever(tmp_path: Path) -> None:
    """The oldest sessions go when there are too many."""
    book = make_book(tmp_path, clock=(clock := [0.0]))
    tokens = []
    for _ in range(MAX_SESSIONS + 1):
        clock[0] += 1
        tokens.append(book.open(KEY))
    assert [book.knows(token) for token in (*tokens[:2], tokens[-1])] == [False, True, True]


def test_a_damaged_file_is_a_new_beginning(tmp_path: Path) -> None:
    """Whatever the file holds, the server starts, and nobody is logged in."""
    (tmp_path / "sessions.json").write_bytes(secrets.token_bytes(64))
    book = make_book(tmp_path)
    assert not book.knows("")
    assert book.knows(book.open(KEY))
