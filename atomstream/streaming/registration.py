"""Makes a stream on the server: find the sample and tags, create what is missing, create, link.

All that is named is looked up before anything is created, so that a wrong UUID leaves no trace. A stream
that could not be linked is ended, and the error names it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from atomstream.errors import AtomstreamError, LinkError
from atomstream.pipeline.retry import certainly_not_received, is_transient, retrying
from atomstream.records import StreamSpec
from atomstream.service.api import ServiceApi
from atomstream.service.wire import NewStream
from atomstream.streaming.arguments import CheckedRequest, InitializeRequest
from atomstream.streaming.catalogue import resolve_sample, resolve_tags

_log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS: Final = 4
PATIENCE_S: Final = 8.0
"""Somebody waits for the answer: no attempt begins later than this, or is put off for longer."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A stream as the server knows it."""

    spec: StreamSpec
    sample_id: str | None = None
    tag_ids: tuple[str, ...] = ()
    project_id: str | None = None


async def register(
    api: ServiceApi,
    request: InitializeRequest,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Registered:
    """Check ``request``, resolve its sample and tags, create the stream and link it.

    Raises:
        TypeError, ConfigError: an argument is wrong; nothing was sent.
        NotFoundError: a UUID names nothing; nothing was created.
        LinkError: the stream was created but not linked; it has been ended, and the error has its ``data_id``.
        ServiceError: the server could not be reached or refused; no stream was created, unless the answer to
            its creation was lost (``ConnectionFailedError.never_sent`` False).
    """
    return await _Registration(api, request.checked(), sleep).run()


class _Registration:
    """One run of :func:`register`."""

    def __init__(
        self, api: ServiceApi, request: CheckedRequest, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._api = api
        self._request = request
        self._sleep = sleep
        self._began = time.monotonic()

    async def run(self) -> Registered:
        request = self._request
        sample = await resolve_sample(self._api, request.sample, self._patiently)
        tags = await resolve_tags(self._api, request.tags, self._patiently)
        sample_id = await sample.settle() if sample else None
        tag_ids = tuple(dict.fromkeys([await tag.settle() for tag in tags]))
        spec = await self._create()
        await self._link(spec.data_id, sample_id, tag_ids)
        return Registered(spec, sample_id, tag_ids, request.project_id)

    async def _create(self) -> StreamSpec:
        request = self._request
        new = NewStream(request.name, request.fps, request.rpm, request.project_id, request.azimuth)
        created = await self._patiently(
            lambda: self._api.create_stream(new), may_repeat=certainly_not_received
        )
        return StreamSpec(
            data_id=created.data_id,
            fps=request.fps,
            rpm=request.rpm,
            chunk_size=request.chunk_size,
            name=request.name,
            announced=created.announced,
        )

    async def _link(self, data_id: str, sample_id: str | None, tag_ids: Sequence[str]) -> None:
        project_id = self._request.project_id
        try:
            if sample_id is not None:
                await self._patiently(lambda: self._api.link_sample(data_id, sample_id))
            if tag_ids:
                await self._patiently(lambda: self._api.link_tags(data_id, tag_ids))
            if sample_id is not None and project_id is not None:
                await self._patiently(lambda: self._api.track_sample(project_id, sample_id))
        except AtomstreamError as error:
            raise LinkError(
                f"Stream {data_id} was created but not linked, so {await self._end(data_id)}. {error}",
                data_id=data_id,
            ) from error
        except asyncio.CancelledError:
            _log.warning("Stream %s was created, but initialize was cancelled: it stays empty.", data_id)
            raise

    async def _end(self, data_id: str) -> str:
        try:
            await self._patiently(lambda: self._api.end_stream(data_id))
        except AtomstreamError as error:
            return f"it should have been ended, which failed too ({error})"
        return "it has been ended"

    async def _patiently(
        self,
        call: Callable[[], Awaitable[T]],
        may_repeat: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        def worth_it(error: BaseException) -> bool:
            later = time.monotonic() - self._began + (getattr(error, "retry_after_s", None) or 0.0)
            return may_repeat(error) and later < PATIENCE_S

        return await retrying(call, attempts=ATTEMPTS, may_repeat=worth_it, sleep=self._sleep)
