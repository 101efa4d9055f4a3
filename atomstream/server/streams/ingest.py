"""Receives the body of an upload into a file, then checks it and commits it to the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import google_crc32c
from aiohttp import StreamReader, web

from atomstream.server.archive.records import CommitResult, UploadClaims
from atomstream.server.archive.stream_archive import Observe, StreamArchive
from atomstream.server.http.requests import refuse_encoded
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings
from atomstream.shard import encoded_bound, frame_nbytes
from atomstream.system.own_files import open_file

WRITE_BYTES = 1 << 20
"""Bytes gathered before they are written: an upload holds this and one socket buffer in memory."""

P = ParamSpec("P")

T = TypeVar("T")


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
        raise


class Ingest:
    """Receives up to ``max_uploads`` bodies at the same time, and commits them in threads.

    There are two pools, so that writing (limited by the disk) and decoding (limited by the CPU) do not block each
    other.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="atomstream-write")
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="atomstream-decode")
        self._receiving: set[asyncio.Timeout] = set()
        self._active = 0
        self._stopping = False

    async def receive(
        self,
        request: web.Request,
        ticket: UploadClaims,
        archive: StreamArchive,
        observe: Observe | None = None,
    ) -> CommitResult:
        """Receive the body of ``request`` and commit it. A refused or incomplete body leaves no file.

        ``observe`` is called with each decoded frame (see :meth:`StreamArchive.commit`).

        Raises:
            HttpError: 4xx about the request, 503 at ``max_uploads`` or when stopping.
            ShardError, ConflictError: about the content of the body.
        """
        length = checked_length(request, ticket)
        if self._stopping or self._active >= self._settings.max_uploads:
            raise HttpError(
                503, "The server accepts no more uploads at the moment.", headers={"Retry-After": "1"}
            )
        self._active += 1
        try:
            return await self._receive(request, ticket, archive, length, observe)
        finally:
            self._active -= 1

    async def _receive(
        self,
        request: web.Request,
        ticket: UploadClaims,
        archive: StreamArchive,
        length: int,
        observe: Observe | None,
    ) -> CommitResult:
        body = _Body(archive)
        try:
            async with self._deadline(length):
                await self._copy(request, body, length)
            return await run_in(self._decoders, body.commit, ticket, observe)
        except BaseException:
            await run_in(self._writers, body.discard)
            raise

    async def _copy(self, request: web.Request, body: _Body, length: int) -> None:
        received = 0
        async for pieces in _batches(request.content, self._settings.body_idle_s):
            received += sum(map(len, pieces))
            await run_in(self._writers, body.write, pieces)
        if received != length:
            raise HttpError(400, f"The body has {received} bytes, but its Content-Length is {length}.")

    @asynccontextmanager
    async def _deadline(self, length: int) -> AsyncIterator[None]:
        """Limit the time of a whole body by its length; the idle limit alone would allow one byte per second."""
        timeout = asyncio.timeout(self._settings.body_idle_s + length / self._settings.body_min_rate)
        try:
            async with timeout:
                self._receiving.add(timeout)
                yield
        except TimeoutError:
            raise self._too_slow() from None
        except (web.RequestPayloadError, ConnectionError):
            raise HttpError(
                400, "The body ended before its Content-Length; nothing of it was stored."
            ) from None
        finally:
            self._receiving.discard(timeout)

    def _too_slow(self) -> HttpError:
        if self._stopping:
            return HttpError(503, "The server is stopping; nothing of this body was stored. Send it again.")
        return HttpError(408, "The body arrived too slowly; nothing of it was stored. Send it again.")

    def stop_receiving(self) -> None:
        """Refuse new bodies and incomplete ones. Bodies that were received completely are still committed."""
        self._stopping = True
        now = asyncio.get_running_loop().time()
        for timeout in self._receiving:
            if not timeout.expired():
                timeout.reschedule(now)

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


async def _batches(content: StreamReader, idle_s: float) -> AsyncIterator[list[bytes]]:
    """The body in lists of pieces of about ``WRITE_BYTES``; raises TimeoutError after ``idle_s`` without data."""
    pieces: list[bytes] = []
    gathered = 0
    while True:
        async with asyncio.timeout(idle_s):
            piece = await content.readany()
        pieces.append(piece)
        gathered += len(piece)
        if not piece or gathered >= WRITE_BYTES:
            yield pieces
            pieces, gathered = [], 0
        if not piece:
            return


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
