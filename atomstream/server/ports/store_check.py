"""Proving what a store must be able to do, with small objects below ``.atomstream-check/``."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from atomstream.server.ports.store import (
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    Store,
    StoreUnavailableError,
)

FOLDER: Final = ".atomstream-check"


@runtime_checkable
class _TakesDamaged(Protocol):
    def accepts_damaged(self, key: str) -> bool: ...


def missing_abilities(store: Store) -> list[str]:
    """What ``store`` can't do, each to be read after "the store ..."; empty if it can do everything.

    Raises:
        StoreUnavailableError: it can't be reached, or refuses this server's keys.
    """
    folder = f"{FOLDER}/{uuid.uuid4()}"
    made = [f"{folder}/{name}" for name in ("once", "damaged")]
    try:
        return list(_missing(store, folder, *made))
    finally:
        for key in made:
            with suppress(StoreUnavailableError):
                store.delete(key)


def _missing(store: Store, folder: str, once: str, damaged: str) -> list[str]:
    found = []
    etag = store.put(once, b"first", create_only=True)
    if _accepts(store, once, b"second", create_only=True):
        found.append(
            "replaces an object that was to be created only once (If-None-Match), so two servers could store "
            "different frames as one chunk"
        )
        etag = store.head(once).etag
    if not _accepts(store, once, b"third", if_match=etag):
        found.append("refuses to replace an object whose etag is the present one (If-Match)")
    elif _accepts(store, once, b"fourth", if_match=etag):
        found.append("ignores the condition that an object was not changed (If-Match)")
    if once not in store.keys(folder):
        found.append("does not list an object that was just stored")
    if store.fetch(once, 1, 2) != store.get(once).data[1:3]:
        found.append("does not return a part of an object (Range)")
    if isinstance(store, _TakesDamaged) and store.accepts_damaged(damaged):
        found.append("accepts an object whose checksum is wrong (Content-MD5)")
    store.delete(once)
    try:
        store.head(once)
        found.append("still has an object that was deleted")
    except ObjectMissingError:
        pass
    return found


def _accepts(
    store: Store, key: str, data: bytes, *, create_only: bool = False, if_match: str | None = None
) -> bool:
    try:
        store.put(key, data, create_only=create_only, if_match=if_match)
    except (ObjectExistsError, StaleObjectError):
        return False
    return True
