"""Receives the body of an upload into a file, then checks it and commits it to the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import google_crc32c
from aiohttp import StreamReader, web

from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.records import CommitResult, UploadClaims
from atomstream.server.archive.stream_archive import Observe, StreamArchive
from atomstream.server.http.expectation import invite_body
from atomstream.server.http.requests import refuse_encoded
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.upload_places import Upload, UploadPlaces
from atomstream.shard import encoded_bound, frame_nbytes
from atomstream.system.own_files import open_file

WRITE_BYTES = 1 << 20
"""Bytes gathered before they are written: an upload holds this and one socket buffer in memory."""

STORE_THREADS = 14
"""Further threads for commits to a store, which mostly wait for its replies."""

P = ParamSpec("P")

T = TypeVar("T")

MayCommit = Callable[[], Awaitable[None]]
"""Raises HttpError if an upload is not permitted any more."""


async def run_in(
    pool: ThreadPoolExecutor | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run ``call(...)`` in a thread of ``pool`` (None: the event loop's default pool).

    A thread can't be cancelled. If the waiting task is cancelled, this waits for the call to end first, so that no
    file is closed during a write or removed during a commit.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, lambda: call(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # of no interest to anybody now; unread, it would be logged
        raise


class Ingest:
    """Receives up to ``max_uploads`` bodies at the same time, and commits them in threads.

    There are two pools, so that writing (limited by the disk) and decoding (limited by the CPU) do not block each
    other.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="atomstream-write")
        waiting = 0 if settings.store is None else STORE_THREADS
        self._decoders = ThreadPoolExecutor(
            settings.decode_threads + waiting, thread_name_prefix="atomstream-decode"
        )
        self.places = UploadPlaces(settings.max_uploads, settings.body_min_rate)
        self._stopping = False
        self._running: dict[str, set[Upload]] = {}
        self._ended = asyncio.Event()

    async def receive(
        self,
        request: web.Request,
        ticket: UploadClaims,
        archive: StreamArchive,
        observe: Observe | None = None,
        owner: str = "",
        *,
        may_commit: MayCommit | None = None,
    ) -> CommitResult:
        """Receive the body of ``request`` and commit it. A refused or incomplete body leaves no file.

        ``owner`` names the key that asked for the upload: places are shared out over keys and streams.
        ``observe`` is called with each decoded frame (see :meth:`StreamArchive.commit`). ``may_commit`` is awaited
        when the body is complete: an error that it raises refuses the upload, because rights may have changed while a
        slow body was received.

        Raises:
            HttpError: 4xx about the request, 503 at ``max_uploads`` or when stopping.
            ShardError, ConflictError: about the content of the body.
        """
        length = checked_length(request, ticket)
        if self._stopping:
            raise self._too_slow(None)
        upload = self.places.acquire(owner, ticket.data_id)
        self._running.setdefault(ticket.data_id, set()).add(upload)
        try:
            return await self._receive(request, ticket, archive, length, observe, upload, may_commit)
        except ArchiveDeletedError:
            raise _deleted(ticket.data_id) from None
        finally:
            self.places.release(upload)
            self._running[ticket.data_id].discard(upload)
            if not self._running[ticket.data_id]:
                del self._running[ticket.data_id]
                self._ended.set()

    async def stop_stream(self, data_id: str) -> None:
        """End the uploads of a stream that is being deleted: bodies that are being received are refused with 410.

        Returns when none of them runs any more. Bodies that were received completely are still committed.
        """
        while running := self._running.get(data_id):
            now = asyncio.get_running_loop().time()
            for upload in running:
                upload.deleted = True
                if upload.receiving and not upload.timeout.expired():
                    upload.timeout.reschedule(now)
            self._ended.clear()
            await self._ended.wait()

    async def _receive(
        self,
        request: web.Request,
        ticket: UploadClaims,
        archive: StreamArchive,
        length: int,
        observe: Observe | None,
        upload: Upload,
        may_commit: MayCommit | None,
    ) -> CommitResult:
        body = _Body(archive)
        try:
            async with self._deadline(upload):
                await invite_body(request)
                await self._copy(request, body, length, upload)
            if may_commit is not None:
                await may_commit()
            return await run_in(self._decoders, body.commit, ticket, observe)
        except BaseException:
            await run_in(self._writers, body.discard)
            raise

    async def _copy(self, request: web.Request, body: _Body, length: int, upload: Upload) -> None:
        loop = asyncio.get_running_loop()
        async for pieces in self._batches(request.content, upload):
            paused = loop.time()
            await run_in(self._writers, body.write, pieces)
            upload.begun += loop.time() - paused  # a slow disk is not the client's fault
        if upload.received != length:
            raise HttpError(400, f"The body has {upload.received} bytes, but its Content-Length is {length}.")

    async def _batches(self, content: StreamReader, upload: Upload) -> AsyncIterator[list[bytes]]:
        """The body in lists of pieces of about ``WRITE_BYTES``; each piece moves the deadline."""
        pieces: list[bytes] = []
        gathered = 0
        while True:
            self._expect_more(upload)
            piece = await content.readany()
            pieces.append(piece)
            gathered += len(piece)
            upload.received += len(piece)
            if not piece or gathered >= WRITE_BYTES:
                if not (upload.lost_place or upload.deleted or self._stopping):
                    upload.timeout.reschedule(None)
                yield pieces
                pieces, gathered = [], 0
            if not piece:
                return

    def _expect_more(self, upload: Upload) -> None:
        """Set the deadline of the next piece: by the pause, and by the rate since the beginning.

        The pause alone would allow one byte every 20 s, which would hold a place for hours.
        """
        if upload.lost_place or upload.deleted or self._stopping:
            return  # the deadline has been set to now
        settings = self._settings
        grace_s = min(settings.body_grace_s, settings.body_idle_s)
        by_rate = upload.begun + grace_s + upload.received / settings.body_min_rate
        upload.timeout.reschedule(min(asyncio.get_running_loop().time() + settings.body_idle_s, by_rate))

    @asynccontextmanager
    async def _deadline(self, upload: Upload) -> AsyncIterator[None]:
        try:
            async with upload.timeout:
                upload.receiving = True
                yield
        except TimeoutError:
            raise self._too_slow(upload) from None
        except (web.RequestPayloadError, ConnectionError):
            raise HttpError(
                400, "The body ended before its Content-Length; nothing of it was stored."
            ) from None
        finally:
            upload.receiving = False

    def _too_slow(self, upload: Upload | None) -> HttpError:
        if self._stopping:
            return HttpError(503, "The server is stopping; nothing of this body was stored. Send it again.")
        if upload is not None and upload.deleted:
            return _deleted(upload.stream)
        if upload is not None and upload.lost_place:
            return HttpError(
                503,
                "Others needed the place of this upload; nothing of its body was stored. Send it again.",
                headers={"Retry-After": "1"},
            )
        return HttpError(408, "The body arrived too slowly; nothing of it was stored. Send it again.")

    @property
    def is_stopping(self) -> bool:
        """True after :meth:`stop_receiving`."""
        return self._stopping

    def stop_receiving(self) -> None:
        """Refuse new bodies and incomplete ones. Bodies that were received completely are still committed."""
        self._stopping = True
        now = asyncio.get_running_loop().time()
        for upload in self.places.receiving():
            if not upload.timeout.expired():
                upload.timeout.reschedule(now)

    async def close(self) -> None:
        """Wait for the threads; a commit that runs ends first."""
        for pool in (self._writers, self._decoders):
            await asyncio.to_thread(pool.shutdown)


def checked_length(request: web.Request, ticket: UploadClaims) -> int:
    """The Content-Length of an upload, before a byte of it is read.

    Raises:
        HttpError: 411 none (chunked), 413 more than frames of that shape can need, 415 compressed.
    """
    refuse_encoded(request)
    length = request.content_length
    if length is None or "Transfer-Encoding" in request.headers:
        raise HttpError(411, "An upload needs a Content-Length; chunked encoding is not accepted.")
    bound = encoded_bound(ticket.dims[0], frame_nbytes(ticket.dims, ticket.dtype))
    if length > bound:
        raise HttpError(
            413, f"The body is too long: chunk {ticket.index}, as announced, has at most {bound} bytes."
        )
    return length


def _deleted(data_id: str) -> HttpError:
    return HttpError(410, f"Stream {data_id} was deleted; nothing of this body was stored.")


class _Body:
    """A body that is being received for ``archive``. Every method blocks.

    The file is opened with the first bytes and closed by the commit: for a small chunk each call in a thread costs
    more than its work.
    """

    def __init__(self, archive: StreamArchive) -> None:
        self._archive = archive
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._crc32c = 0

    def write(self, pieces: list[bytes]) -> None:
        """Append ``pieces``."""
        if self._file is None:
            self._path = self._archive.incoming()
            self._file = open_file(self._path, "xb")
        for piece in pieces:
            self._crc32c = google_crc32c.extend(self._crc32c, piece)
            self._file.write(piece)

    def commit(self, ticket: UploadClaims, observe: Observe | None) -> CommitResult:
        """Commit the file; raises as :meth:`StreamArchive.commit`, which removes it in every case."""
        assert self._file is not None
        assert self._path is not None
        self._file.close()
        return self._archive.commit(ticket, self._path, self._crc32c, observe)

    def discard(self) -> None:
        """Remove the file, if it was not committed."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
