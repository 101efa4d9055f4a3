"""The store: named objects (files of bytes) that are written whole, in a local folder or in an S3 bucket.

Several servers may use one store at the same time. Two conditions make that safe, and each store checks them itself:
an object is created at most once (``create_only``), and it is replaced only if nobody else has replaced it since it
was read (``if_match``).

Every method blocks, and any thread may call it. Keys are names with ``/`` between their parts, such as
``streams/<id>/stream.json``; no part is empty, ``.`` or ``..``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, TypeAlias

import google_crc32c

from atomstream.errors import AtomstreamError
from atomstream.records import Piece
from atomstream.system.own_files import LONGEST

Data: TypeAlias = bytes | Sequence[Piece]
"""The content of an object: bytes, or pieces (bytes-like) that follow one another."""


PIECE_NBYTES: Final = 1 << 20
"""Size, in bytes, of the pieces in which a large object is read."""

DOCUMENT_NBYTES: Final = 16 << 20
"""Longest object that is read as a whole, unless a caller states another length. Descriptions, documents and chunks of
signals are shorter; a store that sends more is wrong, and must not take the memory of the server."""

MAX_ATTEMPTS: Final = 100
"""Number of attempts to replace an object that others replace at the same time."""


class StoreError(AtomstreamError):
    """A request to the store failed; nothing was changed unless the subclass states otherwise."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class ObjectMissingError(StoreError):
    """There is no object with this key."""


class ObjectExistsError(StoreError):
    """``create_only``, but there is an object with this key already.

    It may be the caller's own: the reply to an earlier attempt may have been lost. Compare the content.
    """


class StaleObjectError(StoreError):
    """``if_match``, but the object was replaced or deleted since; read it again."""


class ChecksumError(StoreError):
    """The bytes are not those of the checksum; nothing was stored."""

    retriable: ClassVar[bool] = True


class ObjectTooLongError(StoreError):
    """The object is longer than anything that is stored under its name, so it is damaged; it was not read."""

    def __init__(self, key: str, most: int) -> None:
        super().__init__(f"{key} in the store is longer than {most} bytes, so it is damaged.", key)


class StoreUnavailableError(StoreError):
    """The store can't be reached, or refuses every request at present. The same request may succeed later.

    It is not known whether a ``put`` was carried out.
    """

    retriable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Size in bytes, and the version (etag): another text after each change of the content."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The content of an object and the version (etag) that has it."""

    data: bytes
    etag: str


class Store(Protocol):
    """Objects by key; see the module's docstring. Every method may raise :class:`StoreUnavailableError`."""

    @property
    def name(self) -> str:
        """The place for people, without secrets, such as ``s3://bucket/prefix``."""
        ...

    def put(
        self,
        key: str,
        data: Data,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        crc32c: int | None = None,
    ) -> str:
        """Store an object, whole and durably, and return its etag.

        Args:
            key: its name.
            data: its content.
            create_only: only if there is no object with this key.
            if_match: only if the present object has this etag.
            crc32c: the CRC-32C that ``data`` must have. The transfer to the store is protected by other checksums.

        Raises:
            ObjectExistsError: ``create_only``, and there is one.
            StaleObjectError: ``if_match``, and the present object has another etag, or there is none.
            ChecksumError: the bytes are not those of ``crc32c``, or were changed on the way.
            ValueError: the key is not possible, or both conditions were given.
        """
        ...

    def fetch(
        self, key: str, offset: int = 0, length: int | None = None, *, most: int = DOCUMENT_NBYTES
    ) -> bytes:
        """``length`` bytes from ``offset`` on, fewer at the end; a negative offset counts from the end.

        Raises:
            ObjectMissingError: there is no such object. ObjectTooLongError: without a length, more than ``most`` bytes.
        """
        ...

    def pieces(self, key: str, *, most: int = LONGEST) -> Iterator[Piece]:
        """The whole content in pieces of some MiB at most, of one version; for large objects.

        Raises:
            ObjectMissingError: there is no such object. ObjectTooLongError: it has more than ``most`` bytes.
            StoreUnavailableError: also after some of the pieces.
        """
        ...

    def get(self, key: str, *, most: int = DOCUMENT_NBYTES) -> StoredObject:
        """The whole content and its etag, of one version.

        Raises:
            ObjectMissingError: there is no such object. ObjectTooLongError: it has more than ``most`` bytes.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Size and etag.

        Raises:
            ObjectMissingError: there is no such object.
        """
        ...

    def keys(self, folder: str) -> Iterator[str]:
        """The keys of all objects below ``folder`` (at any depth), in any order; ``""`` for all."""
        ...

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Key and size in bytes of all objects below ``folder``, as :meth:`keys`."""
        ...

    def children(self, folder: str) -> list[str]:
        """The names directly below ``folder``, of objects and of further folders, sorted.

        A folder whose last object was deleted may be listed for some more seconds.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is not an error."""
        ...

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects, in few requests; missing ones are no error. Some may be removed when it fails."""
        ...

    def close(self) -> None:
        """Close the connections. The store can't be used afterwards."""
        ...


def attempts(store: Store, key: str) -> Iterator[int]:
    """The numbers of the attempts to replace an object that others replace at the same time.

    Raises:
        StoreUnavailableError: after :data:`MAX_ATTEMPTS`: a store that refuses each one would be asked for ever.
    """
    yield from range(MAX_ATTEMPTS)
    raise StoreUnavailableError(
        f"The store {store.name} has refused to replace {key} {MAX_ATTEMPTS} times, as if others replaced it at the "
        "same time. It was not changed.",
        key,
    )


def is_key(key: str) -> bool:
    """Whether an object can have this key."""
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def check_key(key: str, *, is_folder: bool = False) -> None:
    """Refuse names that are not possible, or mean something else, in one of the stores.

    Raises:
        ValueError: an empty part, ``.``, ``..``, a backslash or a control character.
    """
    if is_folder and not key:
        return
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(char < " " or char in "\\\x7f" for char in key):
        raise ValueError(f"{key!r} can't be the key of an object.")


def checked_content(
    key: str, data: Data, create_only: bool, if_match: str | None, crc32c: int | None
) -> bytes:
    """The content of a put as one piece, after all checks that need no store.

    Raises:
        ValueError: an impossible key, or two conditions at once. ChecksumError: ``crc32c`` is that of other bytes.
    """
    check_key(key)
    if create_only and if_match is not None:
        raise ValueError("create_only and if_match exclude each other.")
    content = data if isinstance(data, bytes) else b"".join(data)
    if crc32c is not None and google_crc32c.value(content) != crc32c:
        raise ChecksumError(f"The bytes for {key} are not those of their checksum; nothing was stored.", key)
    return content
