"""Copies an archive's documents and columns from the folder of a server to the store, where others read them.

Several servers may do so for one stream. A copy replaces only the version that this server has read. If another server
has written one meanwhile, this server first takes over all chunks that are in the store: these were there before the
other one's copy. So no copy has fewer chunks than the one before it. The group's document keeps the arrays that only
another server has: the process that analyses the stream writes arrays of results.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from atomstream.errors import StreamError
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.zarr_group import DOCUMENT
from atomstream.server.ports.store import ObjectExistsError, ObjectMissingError, StaleObjectError
from atomstream.system.own_files import read_plain

_ROUNDS: Final = 20
"""Number of attempts in one call: each fails if another server has written a newer version meanwhile."""


GROUP: Final = f"frames.zarr/{DOCUMENT}"


class Shaped(Protocol):
    """What is changed in the files before they are copied."""

    def version(self) -> int:
        """Another number whenever an unchanged document is to be copied again."""
        ...

    def content(self, name: str, content: bytes) -> bytes:
        """The content of the copy."""
        ...


class Mirror:
    """The copies of one stream's files. ``catch_up()`` takes over all chunks of the store. Not thread-safe.

    ``may_replace()`` is called before a copy replaces the version of another server; an exception from it prevents
    that. It is called after the state of that version was read: so a process that is frozen between the call and the
    copy, and wakes up when there is a newer version, does not replace that one. ``shaped`` changes what is copied.
    """

    def __init__(
        self,
        folder: Path,
        shared: SharedStream,
        catch_up: Callable[[], object],
        may_replace: Callable[[], None] = lambda: None,
        shaped: Shaped | None = None,
    ) -> None:
        self._folder = folder
        self._shared = shared
        self._catch_up = catch_up
        self._may_replace = may_replace
        self._shaped = shaped
        self._sent: dict[str, tuple[int, int, int]] = {}
        self._etags: dict[str, str] = {}
        self._digests: dict[str, tuple[str, bytes]] = {}
        """The version and content of each document as it was sent last: the same is not sent again."""
        self._others: dict[str, Any] = {}
        """The documents of arrays that only other servers have."""

    def send(self, names: Iterable[str]) -> None:
        """Copy those of the files that changed since their last copy, in this order; missing files are skipped.

        Raises:
            StoreUnavailableError: the store can't be reached; calling it again continues.
        """
        for name in names:
            try:
                found = os.stat(self._folder / name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            version = 0 if self._shaped is None or not name.endswith(DOCUMENT) else self._shaped.version()
            state = (found.st_mtime_ns, found.st_size, version)
            if self._sent.get(name) != state:
                self._send(name)
                self._sent[name] = state

    def _send(self, name: str) -> None:
        store, key = self._shared.store, self._shared.key(name)
        for _ in range(_ROUNDS):
            etag = self._etags.get(name)
            content = read_plain(self._folder / name)
            if name == GROUP and self._others:
                content = _with_arrays(content, self._others)
            if self._shaped is not None:
                content = self._shaped.content(name, content)
            digest = hashlib.blake2b(content, digest_size=16).digest() if name.endswith(DOCUMENT) else None
            if etag is not None and digest is not None and self._digests.get(name) == (etag, digest):
                return
            try:
                self._etags[name] = store.put(key, content, create_only=etag is None, if_match=etag)
            except (ObjectExistsError, StaleObjectError):
                before = self._etags.get(name)
                try:
                    self._adopt(name, key)
                    self._may_replace()
                except BaseException:
                    self._discard_version(name, before)
                    raise
                self._catch_up()
            else:
                if digest is not None:
                    self._digests[name] = (self._etags[name], digest)
                return
        raise StreamError(
            f"{key} is written by many servers at once; it is copied later.", data_id=self._shared.data_id
        )

    def _discard_version(self, name: str, before: str | None) -> None:
        """Discard the version that was read, after it could not be replaced: the next copy reads it again."""
        self._etags.pop(name, None)
        if before is not None:
            self._etags[name] = before

    def _adopt(self, name: str, key: str) -> None:
        """Note the version that another server has written."""
        try:
            if name == GROUP:
                found = self._shared.store.get(key)
                self._others.update(_arrays_in(found.data))
                self._etags[name] = found.etag
            else:
                self._etags[name] = self._shared.store.head(key).etag
        except ObjectMissingError:
            self._etags.pop(name, None)


def _arrays_in(group: bytes) -> dict[str, Any]:
    """The documents of all arrays in that of a group; none in a damaged one."""
    try:
        arrays = json.loads(group)["consolidated_metadata"]["metadata"]
    except (ValueError, KeyError, TypeError):
        return {}
    return arrays if isinstance(arrays, dict) else {}


def _with_arrays(group: bytes, others: dict[str, Any]) -> bytes:
    """The document of a group, with those arrays of ``others`` that it does not have, at its own lengths."""
    document = json.loads(group)
    own = document["consolidated_metadata"]["metadata"]
    lengths = {
        name: length
        for array in own.values()
        for name, length in zip(array.get("dimension_names") or (), array["shape"], strict=False)
    }
    added = {
        name: {
            **array,
            "shape": [
                lengths.get(dimension, length)
                for dimension, length in zip(
                    array.get("dimension_names") or array["shape"], array["shape"], strict=False
                )
            ],
        }
        for name, array in others.items()
        if name not in own
    }
    document["consolidated_metadata"]["metadata"] = dict(sorted({**own, **added}.items()))
    return json.dumps(document, allow_nan=False).encode()
