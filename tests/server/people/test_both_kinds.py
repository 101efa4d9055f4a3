"""The contract of people, keys, sessions and small documents: in a data folder and in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from atomstream.cluster.engines import PostgreSQL
from atomstream.errors import ConfigError
from atomstream.server.dashboard.session_store import SessionStore
from atomstream.server.documents import Documents, FolderDocuments
from atomstream.server.http.api_keys import (
    KeyRing,
    ensure_key,
    read_keys,
    replace_keys,
    revoke_server_keys,
    rotate_server_key,
)
from atomstream.server.http.key_use import KeyUse, read_key_use
from atomstream.server.people.records import Actor
from atomstream.server.people.store import NewKey, People
from atomstream.server.postgres.documents import TableDocuments
from atomstream.server.postgres.migrate import prepare
from atomstream.server.postgres.postgres import Postgres
from tests.databases import make_database

ACTOR = Actor("test", "command line")


@dataclass(frozen=True)
class Place:
    """Where people and documents are, as another process sees it each time that it is asked."""

    people: Callable[[], People]
    documents: Callable[[], Documents]
    postgres: Postgres | None = None


@pytest.fixture(params=["folder", "postgresql"])
def place(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[Place]:
    """A folder, or a database with its tables."""
    if request.param == "folder":
        yield Place(lambda: People(memory_path), lambda: FolderDocuments(memory_path))
        return
    address = make_database(request.getfixturevalue("postgres_server"))
    with ExitStack() as stack:

        def connected() -> Postgres:
            postgres = Postgres(address)
            stack.callback(postgres.blocking.dispose)
            return postgres

        first = connected()
        prepare(first)
        yield Place(lambda: People(connected()), lambda: TableDocuments(connected()), first)


def digest(made: NewKey) -> bytes:
    return hashlib.sha256(made.secret.encode()).digest()


def test_people_and_keys_are_there_for_another_process(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has made or revoked is valid for the other as soon as it reads; names stay unique."""
    monkeypatch.setattr("atomstream.server.people.store.hash_password", lambda _: "hash")
    first, second = place.people(), place.people()
    first.add_user(ACTOR, "Anna", "operator", password="correct horse battery")
    with pytest.raises(ConfigError, match="already"):
        second.add_user(ACTOR, "anna", "viewer")
    made = second.create_key(ACTOR, "write", user="anna")
    assert first.has_news()
    assert first.refresh()
    key = first.directory.key_with(digest(made))
    assert key is not None
    assert first.password_hash(second._user("anna")) == "hash"
    first.revoke_key(ACTOR, key.id)
    second.refresh()
    assert second.directory.key_with(digest(made)) is None
    assert second.directory.revoked[digest(made)].id == key.id
    second.remove_user(ACTOR, "anna")
    assert second.with_password() == set()
    done = [entry.done.split()[0] for entry in place.people().directory.entries]
    assert done == ["added", "made", "revoked", "removed"]


def test_the_chain_holds_with_two_writers(place: Place) -> None:
    """Entries that two processes write at the same time are all there, each after the one before."""
    writers = [place.people(), place.people()]

    def write(number: int) -> None:
        for k in range(10):
            writers[number].note(ACTOR, f"{number}.{k}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    again = place.people()
    assert again.damage == ""
    done = [entry.done for entry in again.directory.entries]
    assert sorted(done) == sorted(f"{number}.{k}" for number in range(2) for k in range(10))
    for number in range(2):
        assert [one for one in done if one.startswith(f"{number}.")] == [f"{number}.{k}" for k in range(10)]
    for writer in writers:
        writer.refresh()
        assert [entry.done for entry in writer.directory.entries] == done


def test_a_link_logs_in_once(place: Place) -> None:
    """Of two processes that use a link at the same time, one gets its holder."""
    here, there = place.people(), place.people()
    here.add_user(ACTOR, "Anna", "viewer")
    token = there.link_for(ACTOR, "anna")
    with ThreadPoolExecutor(2) as pool:
        holders = list(pool.map(lambda people: people.use_link(ACTOR, token), (here, there)))
    assert sorted(holder is None for holder in holders) == [False, True]


def test_a_failed_change_leaves_nothing(place: Place) -> None:
    """After an exception nobody sees a part of a change, and the log goes on."""
    people = place.people()
    with pytest.raises(RuntimeError), people._changing(ACTOR):
        raise RuntimeError
    people.note(ACTOR, "later")
    assert [entry.done for entry in place.people().directory.entries] == ["later"]


def test_one_first_key_and_its_ends(place: Place) -> None:
    """Of several first starts one makes the key. A new one replaces it, now or later; a revoked one is final."""
    with ThreadPoolExecutor(4) as pool:
        made = [
            key
            for key in pool.map(lambda _: ensure_key(place.documents()), range(4 if place.postgres else 1))
            if key
        ]
    assert len(made) == 1
    ring = KeyRing.load(place.documents(), None)
    assert ring.opens(made[0])
    other = rotate_server_key(place.documents(), 3600.0)
    assert ring.has_news()
    assert ring.refresh()
    assert ring.opens(other)
    assert ring.opens(made[0])
    replace_keys(place.documents(), "x" * 40)
    ring.refresh()
    assert [ring.opens(key) for key in (made[0], other, "x" * 40)] == [False, False, True]
    revoke_server_keys(place.documents())
    ring.refresh()
    assert not ring.opens("x" * 40)
    assert len(read_keys(place.documents())) == 1
    assert ensure_key(place.documents()) is None


def test_documents_are_whole_and_marked(place: Place) -> None:
    """A document is read as it was written; its mark differs after a change. A change to the same writes nothing."""
    documents = place.documents()
    assert documents.read("a.json") is None
    assert documents.change("a.json", lambda content: None) is None
    marks = [documents.mark("a.json")]
    for content in (b"first", bytes(range(256)), b""):
        documents.write("a.json", content)
        assert place.documents().read("a.json") == content
        marks.append(documents.mark("a.json"))
    assert len(set(marks)) == len(marks)
    assert documents.change("a.json", lambda content: content) == b""
    assert documents.mark("a.json") == marks[-1]
    assert documents.change("a.json", lambda content: (content or b"") + b"x") == b"x"
    with pytest.raises(RuntimeError):
        documents.change("a.json", _fail)
    assert place.documents().read("a.json") == b"x"
    assert "a.json" in documents.place("a.json")


def _fail(_: bytes | None) -> bytes:
    raise RuntimeError


def test_changes_do_not_overlap(place: Place) -> None:
    """Threads that add to one document lose nothing: of one server in a folder, of two in a database."""
    one = place.documents()
    both = (one, place.documents()) if place.postgres else (one, one)
    barrier = threading.Barrier(2)

    def add(number: int) -> None:
        barrier.wait()
        for _ in range(10):
            both[number].change("sum", lambda content: str(int(content or b"0") + 1).encode())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(2)))
    assert one.read("sum") == b"20"


def test_the_last_use_of_keys_is_the_latest(place: Place) -> None:
    """The times that two servers write are merged; a file has those of its one server."""
    now = [1000.0]
    first = KeyUse(place.documents(), lambda: now[0])
    second = KeyUse(place.documents(), lambda: now[0])
    first.note("a")
    first.write(now=True)
    if place.postgres:
        now[0] = 2000.0
        second.note("b")
        second.write(now=True)
        assert second.last("a") == 1000.0
        assert read_key_use(place.documents()) == {"a": 1000.0, "b": 2000.0}
    else:
        assert read_key_use(place.documents()) == {"a": 1000.0}


def test_sessions_of_two_servers(place: Place) -> None:
    """Other servers accept a session after their next read of the database, and it ends for all of them."""
    first = SessionStore(place.documents(), lambda holder: holder == "user:1:0")
    token = first.open("user:1:0")
    second = SessionStore(place.documents(), lambda holder: True)
    assert second.holder_of(token) == "user:1:0"
    if not place.postgres:
        return
    other = second.open("user:2:0")
    assert first.holder_of(other) is None
    assert first.refresh()
    assert not first.refresh()
    assert first.holder_of(token) == "user:1:0"
    first.close(token)
    second.refresh()
    assert second.holder_of(token) is None
    assert second.holder_of(other) == "user:2:0"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE people_log SET line = convert_to(replace(convert_from(line, 'UTF8'), 'eve', 'bob'), 'UTF8')",
        "DELETE FROM people_log WHERE number = 2",
        "DELETE FROM people_log WHERE number = 3",
        "UPDATE people_log SET line = 'x' WHERE number = 1",
    ],
    ids=["changed", "removed within", "removed at the end", "unreadable"],
)
def test_a_changed_table_opens_nothing(postgres_server: PostgreSQL, damage: str) -> None:
    """With a line changed or left out a revoked key would be valid again: no line counts, and a sentence names it."""
    address = make_database(postgres_server)
    postgres = Postgres(address)
    try:
        prepare(postgres)
        people = People(postgres)
        for name in ("anna", "eve", "zoe"):
            people.add_user(ACTOR, name, "admin")
        with postgres.transaction() as connection:
            connection.execute(text(damage))
        fresh = People(postgres)
        if damage.endswith("number = 3"):  # the damage is found when the row is read again
            assert fresh.damage == ""
            people.refresh()
            fresh = people
        assert "people_log" in fresh.damage
        assert not fresh.directory.users
        with pytest.raises(ConfigError, match="damaged"):
            fresh.add_user(ACTOR, "new", "admin")
    finally:
        asyncio.run(postgres.close())
