"""A store in an S3 bucket, by obstore (Rust's object_store): of AWS, or of a server such as SeaweedFS, Ceph or MinIO.

The keys come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, or the
role of the machine); a URL has no secrets. Each object is sent in one request with its SHA-256, which the store
compares: so an object is there whole and unchanged, or not at all.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import obstore
from obstore import exceptions
from obstore.store import S3Store as Bucket

from atomstream.counted import counted
from atomstream.records import Piece
from atomstream.server.ports.store import (
    DOCUMENT_NBYTES,
    PIECE_NBYTES,
    ChecksumError,
    Data,
    ObjectExistsError,
    ObjectInfo,
    ObjectMissingError,
    ObjectTooLongError,
    StaleObjectError,
    StoredObject,
    StoreUnavailableError,
    check_key,
    checked_content,
    is_key,
)
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import LONGEST

log = get_logger("atomstream.server")
CONNECT_S: Final = 2.0
REQUEST_S: Final = 20.0
"""Longest time of one attempt in s: a chunk of 41 MB needs 2 MB/s."""
_TRIES_AGAIN: Final = 1
MAX_PAGES: Final = 5000
"""Most pages of a list: 5 million objects. A store may answer each page by another one."""
LIST_S: Final = 600.0
"""Longest time of a list in s."""
LIST_CHILDREN_S: Final = 60.0
"""Longest time of a list of streams in s; all of it is in memory. A million streams are 1000 pages."""
_BAD_BYTES: Final = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
_NO_BUCKET: Final = "NoSuchBucket"
_NOWHERE: Final = "127.0.0.1:0"
"""An address that nobody can listen at: the proxy for all hosts but that of the store."""
_PAST_THE_END: Final = "InvalidRange"


class S3Store:
    """Objects in ``bucket`` below ``prefix``; see :class:`~.store.Store`.

    ``endpoint`` is the address of the S3 server, None for AWS. ``authority`` is a file with the certificate (PEM) of
    the authority that signed that of the server. ``options`` are further ones of obstore's ``S3Store``, such as keys
    in tests.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        authority: Path | None = None,
        **options: Any,
    ) -> None:
        self._bucket_name = bucket
        self._prefix = prefix.strip("/")
        self._plain = endpoint is not None and endpoint.startswith("http://")
        has_keys = bool(options.get("access_key_id") or os.environ.get("AWS_ACCESS_KEY_ID"))
        self._only_host = _only_host(endpoint) if has_keys else None
        self._options: dict[str, Any] = {
            "region": region or "us-east-1",
            "virtual_hosted_style_request": False,
            "retry_config": {"max_retries": _TRIES_AGAIN},
            **({} if endpoint is None else {"endpoint": endpoint}),
            **options,
        }
        self._authority = None if authority is None else authority.read_bytes()
        self._bucket: Bucket | None = self._open()
        self._deletes_many = True

    def _open(self, headers: dict[str, str] | None = None) -> Bucket:
        """The bucket. With ``headers``, each request has these and no checksum of the library."""
        given = dict(self._options)
        client: Any = {"timeout": f"{REQUEST_S:g}s", "connect_timeout": f"{CONNECT_S:g}s"}
        if self._plain:
            client["allow_http"] = True
        if self._only_host is not None:
            client |= {"proxy_url": f"http://{_NOWHERE}", "proxy_excludes": self._only_host}
        if self._authority is not None:
            client["root_certificate"] = self._authority
        if headers:
            client["default_headers"] = headers
        else:
            given["checksum_algorithm"] = "SHA256"
        return Bucket(self._bucket_name, prefix=self._prefix or None, client_options=client, **given)

    @property
    def name(self) -> str:
        """The bucket and prefix as a URL."""
        return f"s3://{self._bucket_name}/{self._prefix}".rstrip("/")

    @property
    def _open_bucket(self) -> Bucket:
        if self._bucket is None:
            raise StoreUnavailableError(f"The store {self.name} was closed.")
        return self._bucket

    def put(
        self,
        key: str,
        data: Data,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        crc32c: int | None = None,
    ) -> str:
        """Store an object; see :meth:`.store.Store.put`."""
        content = checked_content(key, data, create_only, if_match, crc32c)
        mode: Any = "create" if create_only else "overwrite" if if_match is None else {"e_tag": if_match}
        with self._errors(key):
            made = obstore.put(self._open_bucket, key, content, mode=mode, use_multipart=False)
        return made["e_tag"] or ""

    def fetch(
        self, key: str, offset: int = 0, length: int | None = None, *, most: int = DOCUMENT_NBYTES
    ) -> bytes:
        """A part of an object; see :meth:`.store.Store.fetch`."""
        check_key(key)
        if length is not None and length <= 0:
            return b""
        with self._errors(key):
            try:
                return self._fetch(key, offset, length, most)
            except exceptions.GenericError as error:
                if _PAST_THE_END not in str(error):
                    raise
                return b""

    def _fetch(self, key: str, offset: int, length: int | None, most: int) -> bytes:
        wanted: Any = None
        if offset < 0:
            wanted, most = {"suffix": -offset}, -offset
        elif length is not None:
            wanted, most = (offset, offset + length), length
        elif offset:
            wanted = {"offset": offset}
        options: Any = {} if wanted is None else {"range": wanted}
        found = b"".join(self._received(key, obstore.get(self._open_bucket, key, options=options), most))
        return found if length is None else found[:length]

    def pieces(self, key: str, *, most: int = LONGEST) -> Iterator[Piece]:
        """The content of an object in pieces; see :meth:`.store.Store.pieces`."""
        check_key(key)
        with self._errors(key):
            yield from self._received(key, obstore.get(self._open_bucket, key), most)

    def get(self, key: str, *, most: int = DOCUMENT_NBYTES) -> StoredObject:
        """An object with its etag; see :meth:`.store.Store.get`."""
        check_key(key)
        with self._errors(key):
            found = obstore.get(self._open_bucket, key)
            return StoredObject(b"".join(self._received(key, found, most)), found.meta["e_tag"] or "")

    def _received(self, key: str, found: Any, most: int) -> Iterator[bytes]:
        """The body of a reply in pieces. A store may state another length than it sends, or send without an end.

        Raises:
            ObjectTooLongError: it would be more than ``most`` bytes. StoreUnavailableError: it has another length.
        """
        start, stop = found.range
        left = stop - start
        stream = found.stream(min_chunk_size=PIECE_NBYTES)
        try:
            if left > most:
                raise ObjectTooLongError(key, most)
            for piece in stream if left else ():
                left -= len(piece)
                if left < 0:
                    break
                yield bytes(piece)
        finally:
            del stream  # closes the connection, also while somebody keeps the error
        if left:
            raise self._unavailable("it has sent another number of bytes than it stated", key)

    def head(self, key: str) -> ObjectInfo:
        """Size and etag of an object; see :meth:`.store.Store.head`."""
        check_key(key)
        with self._errors(key):
            found = obstore.head(self._open_bucket, key)
        return ObjectInfo(found["size"], found["e_tag"] or "")

    def keys(self, folder: str) -> Iterator[str]:
        """The keys below a folder; see :meth:`.store.Store.keys`. One request for 1000 keys."""
        return (key for key, _ in self.sizes(folder))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes below a folder; see :meth:`.store.Store.sizes`. One request for 1000 keys."""
        check_key(folder, is_folder=True)
        begin, until = f"{folder}/" if folder else "", time.monotonic() + LIST_S
        with self._errors(folder):
            for count, some in enumerate(obstore.list(self._open_bucket, folder or None)):
                if count >= MAX_PAGES or time.monotonic() > until:
                    raise self._unavailable(f"its list has no end after {counted(count, 'page')}", folder)
                for found in some:
                    key, size = found["path"], found["size"]
                    if key.startswith(begin) and is_key(
                        key
                    ):  # others are not of atomstream: as paths they lead out
                        yield key, size

    def children(self, folder: str) -> list[str]:
        """The names directly below a folder; see :meth:`.store.Store.children`. One request for 1000 names."""
        check_key(folder, is_folder=True)
        begin = f"{folder}/" if folder else ""
        with self._errors(folder), ThreadPoolExecutor(1, thread_name_prefix="atomstream-list") as thread:
            found = thread.submit(asyncio.run, self._list_children(folder)).result()
        paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return sorted(path.removeprefix(begin) for path in paths if path.startswith(begin) and is_key(path))

    async def _list_children(self, folder: str) -> Any:
        """The reply of obstore, which collects all pages; cancelled if a list has no end."""
        try:
            async with asyncio.timeout(LIST_CHILDREN_S):
                return await obstore.list_with_delimiter_async(self._open_bucket, folder or None)
        except TimeoutError:
            raise self._unavailable(f"its list has no end after {LIST_CHILDREN_S:g} s", folder) from None

    def delete(self, key: str) -> None:
        """Remove an object; see :meth:`.store.Store.delete`."""
        check_key(key)
        try:
            with self._errors(key):
                obstore.delete(self._open_bucket, key)
        except ObjectMissingError:
            return

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects; see :meth:`.store.Store.delete_all`. One request for 1000 keys, if the store has this."""
        for key in keys:
            check_key(key)
        if self._deletes_many and len(keys) > 1:
            try:
                with self._errors(keys[0]):
                    obstore.delete(self._open_bucket, keys)
            except (ObjectMissingError, StoreUnavailableError):  # for example a store without this request
                log.debug("%s: several objects can't be deleted at once", self.name)
            else:
                return
        for key in keys:
            self.delete(key)
        self._deletes_many = self._deletes_many and len(keys) < 2

    def close(self) -> None:
        """Close the connections."""
        self._bucket = None

    def accepts_damaged(self, key: str) -> bool:
        """Whether the store accepts an object whose checksum is wrong; sends one, and removes what was accepted."""
        wrong = base64.b64encode(hashlib.md5(b"other bytes", usedforsecurity=False).digest()).decode()
        bucket = self._open({"Content-MD5": wrong})
        try:
            with self._errors(key):
                obstore.put(bucket, key, b"these bytes", use_multipart=False)
        except ChecksumError:
            return False
        self.delete(key)
        return True

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn the errors of obstore into those of the port. Their texts quote the request: only a part is kept."""
        try:
            yield
        except exceptions.AlreadyExistsError:
            raise ObjectExistsError(f"{key} is in {self.name} already.", key) from None
        except exceptions.PreconditionError:
            raise StaleObjectError(f"{key} in {self.name} was changed since it was read.", key) from None
        except FileNotFoundError as error:
            if _NO_BUCKET in str(error):
                raise self._unavailable(f"there is no bucket {self._bucket_name!r}", key) from None
            raise ObjectMissingError(f"There is no {key} in {self.name}.", key) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise self._unavailable(f"it refuses the keys of this server ({_code(error)})", key) from None
        except exceptions.BaseError as error:
            if any(code in str(error) for code in _BAD_BYTES):
                raise ChecksumError(
                    f"{key} was changed on the way to {self.name}; it was not stored.", key
                ) from None
            raise self._unavailable(_code(error), key) from None

    def _unavailable(self, why: str, key: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"The store {self.name} can't be used at present ({key or '/'}): {why}.", key
        )


def _only_host(endpoint: str | None) -> str | None:
    """The only host to which requests may go; None if it is not known, or requests go through a proxy.

    obstore follows redirects, and has no option against it. So a proxy that does not exist is stated for all other
    hosts. It is left out without keys in the environment: the library then asks a host of the cloud for them.
    """
    if endpoint is None or getproxies().keys() - {"no"}:
        return None
    return urlsplit(endpoint).hostname


def _code(error: Exception) -> str:
    """The reason in an error of obstore: the S3 code, or what the connection reported."""
    text = str(error)
    if f"{_NOWHERE}," in text:
        return "it redirects to another host, which is not followed"
    if "<Code>" in text:
        return text.split("<Code>", 1)[1].split("<", 1)[0]
    first = text.splitlines()[0] if text else type(error).__name__
    return first.rsplit(" - ", 1)[-1].rstrip(". ")[:200]
