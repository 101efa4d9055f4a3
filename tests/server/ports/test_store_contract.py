"""What every store must do, in a folder and in a real S3 server alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store import (
    PIECE_NBYTES,
    ChecksumError,
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    Store,
)
from atomstream.server.ports.store_check import missing_abilities
from tests.stores import s3_store

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "folder":
        yield LocalStore(tmp_path / "store")
        return
    server: SeaweedFS = request.getfixturevalue("s3_server")
    made = s3_store(server, f"contract/{uuid.uuid4()}")
    yield made
    made.close()


def test_an_object_comes_back(store: Store) -> None:
    """Content in one piece or several, whole and in parts; a part beyond the end is shorter or empty."""
    etag = store.put("a/b c/é.bin", b"0123456789")
    assert store.put("pieces", [b"01", memoryview(b"23"), b""]) != etag
    assert store.get("a/b c/é.bin").data == b"0123456789"
    assert store.get("a/b c/é.bin").etag == store.head("a/b c/é.bin").etag == etag
    assert store.head("a/b c/é.bin").size == 10
    assert store.fetch("pieces") == b"0123"
    assert store.fetch("a/b c/é.bin", 3, 4) == b"3456"
    assert store.fetch("a/b c/é.bin", 8, 4) == b"89"
    assert store.fetch("a/b c/é.bin", 8) == b"89"
    assert store.fetch("a/b c/é.bin", -3) == b"789"
    assert store.fetch("a/b c/é.bin", -3, 2) == b"78"
    assert store.fetch("a/b c/é.bin", 10, 4) == store.fetch("a/b c/é.bin", 99) == b""
    assert store.fetch("a/b c/é.bin", 2, 0) == b""


def test_a_large_object_comes_in_pieces(store: Store) -> None:
    """All of it, in order; a missing one is an error at the first piece."""
    content = bytes(range(251)) * ((5 * PIECE_NBYTES // 2) // 251)
    store.put("large", content)
    pieces = [bytes(piece) for piece in store.pieces("large")]
    assert b"".join(pieces) == content
    assert len(pieces) > 1
    store.put("empty", b"")
    assert b"".join(store.pieces("empty")) == b""
    with pytest.raises(ObjectMissingError):
        next(store.pieces("none"))


def test_an_empty_object_is_an_object(store: Store) -> None:
    """No bytes are content too."""
    store.put("nothing", b"", create_only=True)
    assert store.head("nothing").size == 0
    assert store.fetch("nothing") == store.get("nothing").data == store.fetch("nothing", -5) == b""


def test_a_missing_object_is_named(store: Store) -> None:
    """Reading it is an error with its key; deleting it is not an error."""
    for read in (store.fetch, store.get, store.head):
        with pytest.raises(ObjectMissingError, match="there/is/none") as caught:
            read("there/is/none")
        assert caught.value.key == "there/is/none"
    store.delete("there/is/none")


def test_an_object_is_created_once(store: Store) -> None:
    """``create_only`` refuses the second one, equal or not, until the first is deleted."""
    store.put("once", b"first", create_only=True)
    for data in (b"first", b"second"):
        with pytest.raises(ObjectExistsError, match="once"):
            store.put("once", data, create_only=True)
    assert store.fetch("once") == b"first"
    store.delete("once")
    store.put("once", b"second", create_only=True)
    assert store.fetch("once") == b"second"


def test_a_changed_object_is_not_replaced(store: Store) -> None:
    """``if_match`` accepts the present etag only, and nothing for an object that is missing."""
    first = store.put("doc", b"1")
    second = store.put("doc", b"2", if_match=first)
    assert second != first
    with pytest.raises(StaleObjectError, match="doc"):
        store.put("doc", b"3", if_match=first)
    assert store.fetch("doc") == b"2"
    with pytest.raises(StaleObjectError):
        store.put("never", b"3", if_match=second)
    store.delete("doc")
    with pytest.raises(StaleObjectError):
        store.put("doc", b"3", if_match=second)
    with pytest.raises(ValueError, match="exclude"):
        store.put("doc", b"3", if_match=second, create_only=True)


def test_a_checksum_guards_the_content(store: Store) -> None:
    """Bytes that are not those of their CRC-32C are not stored."""
    right = google_crc32c.value(b"these bytes")
    store.put("checked", [b"these ", b"bytes"], crc32c=right)
    with pytest.raises(ChecksumError, match="other"):
        store.put("other", b"those bytes", crc32c=right)
    with pytest.raises(ObjectMissingError):
        store.head("other")


def test_keys_and_children(store: Store) -> None:
    """All keys at any depth below a folder, and the names directly below it; a folder is not a prefix of a name."""
    for key in ("s/1/doc", "s/1/c/0/0", "s/2/doc", "s/10", "sibling"):
        store.put(key, b"x")
    assert sorted(store.keys("s/1")) == ["s/1/c/0/0", "s/1/doc"]
    assert sorted(store.keys("")) == ["s/1/c/0/0", "s/1/doc", "s/10", "s/2/doc", "sibling"]
    assert sorted(store.sizes("s/1")) == [("s/1/c/0/0", 1), ("s/1/doc", 1)]
    assert store.children("s") == ["1", "10", "2"]
    assert store.children("") == ["s", "sibling"]
    assert list(store.keys("none/here")) == store.children("none/here") == []
    store.delete("s/2/doc")
    assert sorted(store.keys("s")) == ["s/1/c/0/0", "s/1/doc", "s/10"]


def test_many_objects_are_removed(store: Store) -> None:
    """Missing ones are no error, and others stay; a key of another kind removes nothing."""
    for name in "abc":
        store.put(f"many/{name}", b"x")
    store.delete_all([])
    with pytest.raises(ValueError, match="can't be the key"):
        store.delete_all(["many/a", "many/../a"])
    store.delete_all(["many/a", "many/missing", "many/c"])
    assert list(store.keys("many")) == ["many/b"]
    store.delete_all(["many/b"])
    assert list(store.keys("many")) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\\b", "a\nb"])
def test_impossible_keys_are_refused(store: Store, key: str) -> None:
    """Keys that mean another object, or none, in one of the stores."""
    with pytest.raises(ValueError, match="key of an object"):
        store.put(key, b"x")
    with pytest.raises(ValueError, match="key of an object"):
        store.get(key)


def test_of_many_writers_one_creates(store: Store) -> None:
    """Eight threads create the same object: one succeeds, and the object is the one of that thread."""
    won: list[int] = []

    def create(number: int) -> None:
        try:
            store.put("race", f"{number}".encode() * 5000, create_only=True)
        except ObjectExistsError:
            return
        won.append(number)

    _in_threads(create)
    assert len(won) == 1
    assert store.fetch("race") == f"{won[0]}".encode() * 5000


def test_no_change_of_many_writers_is_lost(store: Store) -> None:
    """Eight threads add one to a number by reading it and writing it with ``if_match``: the sum is eight."""
    store.put("sum", b"0")

    def add(_number: int) -> None:
        while True:
            found = store.get("sum")
            try:
                store.put("sum", str(int(found.data) + 1).encode(), if_match=found.etag)
            except StaleObjectError:
                continue
            return

    _in_threads(add)
    assert store.fetch("sum") == b"8"


def test_the_check_finds_nothing_missing(store: Store) -> None:
    """Both stores pass the check of the start, which leaves nothing behind."""
    assert missing_abilities(store) == []
    assert list(store.keys("")) == []


def _in_threads(call: object) -> None:
    assert callable(call)
    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
