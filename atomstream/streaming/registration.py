"""Registration of a new stream on the server: find its sample and tags, create the stream, link it.

All names and UUIDs are looked up before anything is created, so a wrong UUID changes nothing on the server. A stream
that could not be linked to its sample, tags or project is ended, and the error has its ``data_id``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from atomstream.errors import AtomstreamError, LinkError, NotFoundError, RejectedError
from atomstream.protocol import normalized_name
from atomstream.records import StreamSpec
from atomstream.retry import certainly_not_received, is_transient, retrying
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import NamedItem, NewStreamBody
from atomstream.streaming.signal_request import CheckedSignals, SignalsRequest
from atomstream.streaming.stream_request import InitializeRequest, StreamRequest
from atomstream.system.log_privacy import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

ATTEMPTS: Final = 4

RETRY_LIMIT_S: Final = 8.0
"""The caller of ``initialize`` waits: no request is repeated later than this after the start."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_NAME_EXISTS: Final = frozenset({400, 409})
"""HTTP status of a request to create a name that exists."""


# -- samples and tags -----------------------------------------------------------------------------------------


class RetryingCall(Protocol):
    """Awaits a request and repeats it after transient errors."""

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``call``, or raise its last error."""


@dataclass(frozen=True, slots=True)
class ResolvedName:
    """A sample or tag by name: the id of an existing one, or None and the function that creates it."""

    existing_id: str | None
    create: Callable[[], Awaitable[str]]

    async def id_or_create(self) -> str:
        """Return the id; creates the sample or tag on the server if it does not exist."""
        return self.existing_id if self.existing_id is not None else await self.create()


async def resolve_sample(api: ServiceApi, wanted: str | None, retry: RetryingCall) -> ResolvedName | None:
    """Look the physical sample up by name or UUID; None if none is wanted.

    Raises:
        NotFoundError: no sample has this UUID.
    """
    if wanted is None:
        return None
    items = await retry(api.list_samples)
    name = wanted.strip()
    return ResolvedName(_find("physical sample", wanted, items), lambda: _create_sample(api, name, retry))


async def resolve_tags(api: ServiceApi, wanted: Sequence[str], retry: RetryingCall) -> list[ResolvedName]:
    """Look the tags up by name or UUID, in the given order, without duplicates.

    Raises:
        NotFoundError: no tag has this UUID.
    """
    if not wanted:
        return []
    items = await retry(api.list_tags)
    by_key = {normalized_name(tag): tag for tag in reversed(wanted)}
    tags = [by_key[key] for key in dict.fromkeys(map(normalized_name, wanted))]
    return [_resolved_tag(api, tag, items, retry) for tag in tags]


def _resolved_tag(api: ServiceApi, tag: str, items: Iterable[NamedItem], retry: RetryingCall) -> ResolvedName:
    return ResolvedName(_find("tag", tag, items), lambda: _create_tag(api, tag.strip(), retry))


def match(name: str, items: Iterable[NamedItem]) -> str | None:
    """Return the id of the item with this name; an equal spelling is preferred, then the first one."""
    alike = [item for item in items if normalized_name(item.name) == normalized_name(name)]
    same = [item for item in alike if item.name == name]
    return next((item.id for item in same + alike), None)


def _find(kind: str, wanted: str, items: Iterable[NamedItem]) -> str | None:
    text = wanted.strip()
    if not _UUID.fullmatch(text):
        return match(wanted, items)
    for item in items:
        if item.id.lower() == text.lower():
            return item.id
    raise NotFoundError(
        f"There is no {kind} with the UUID {text} (or this API key may not see it). Nothing was created; "
        f"pass the UUID of an existing one, or a name, which is created if it does not exist."
    )


async def _create_sample(api: ServiceApi, name: str, retry: RetryingCall) -> str:
    try:
        return await retry(lambda: api.create_sample(name))
    except RejectedError as error:
        existing = _existing_id(error.detail)
        return existing or await _created_by_another(error, name, api.list_samples, retry)


def _existing_id(detail: Any) -> str | None:
    found = detail.get("physical_sample_id") if isinstance(detail, dict) else None
    return found if isinstance(found, str) and found else None


async def _create_tag(api: ServiceApi, name: str, retry: RetryingCall) -> str:
    try:
        return await retry(lambda: api.create_tag(name))
    except RejectedError as error:
        return await _created_by_another(error, name, api.list_tags, retry)


async def _created_by_another(
    error: RejectedError,
    name: str,
    listing: Callable[[], Awaitable[list[NamedItem]]],
    retry: RetryingCall,
) -> str:
    """Return the id of an item that another computer created with this name at the same time; else raise ``error``."""
    found = match(name, await retry(listing)) if error.status in _NAME_EXISTS else None
    if found is None:
        raise error
    return found


# -- the stream -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamRegistration:
    """A new stream on the server, with the ids of what it is linked to."""

    spec: StreamSpec
    sample_id: str | None = None
    tag_ids: tuple[str, ...] = ()
    project_id: str | None = None


async def register(
    api: ServiceApi,
    request: InitializeRequest,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> StreamRegistration:
    """Check ``request``, resolve its sample and tags, create the stream and link it.

    Raises:
        TypeError, ConfigError: an argument is invalid; nothing was sent.
        NotFoundError: nothing has the given UUID; nothing was created.
        LinkError: the stream was created but not linked; it has been ended, and the error has its ``data_id``.
        ServiceError: the server could not be reached or refused. No stream was created, unless only the reply was
            lost (``ConnectionFailedError.never_sent`` is False).
    """
    return await _Registration(api, request.checked(), sleep).run()


async def register_signals(api: ServiceApi, request: SignalsRequest) -> StreamRegistration:
    """As :func:`register`, for a stream of signals."""
    return await _Registration(api, request.checked(), asyncio.sleep).run()


class _Registration:
    """One run of :func:`register`."""

    def __init__(
        self,
        api: ServiceApi,
        request: StreamRequest | CheckedSignals,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api = api
        self._request = request
        self._sleep = sleep
        self._started = time.monotonic()

    async def run(self) -> StreamRegistration:
        request = self._request
        sample = await resolve_sample(self._api, request.sample, self._retrying)
        tags = await resolve_tags(self._api, request.tags, self._retrying)
        sample_id = await sample.id_or_create() if sample else None
        tag_ids = tuple(dict.fromkeys([await tag.id_or_create() for tag in tags]))
        spec = await self._create()
        await self._link(spec.data_id, sample_id, tag_ids)
        return StreamRegistration(spec, sample_id, tag_ids, request.project_id)

    async def _create(self) -> StreamSpec:
        request = self._request
        if isinstance(request, CheckedSignals):
            return await self._create_signals(request)
        new = NewStreamBody(request.name, request.fps, request.rpm, request.project_id, request.azimuth)
        created = await self._retrying(
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

    async def _create_signals(self, request: CheckedSignals) -> StreamSpec:
        created = await self._retrying(
            lambda: self._api.create_signals(request.body()), may_repeat=certainly_not_received
        )
        return request.spec(created.data_id, created.announced)

    async def _link(self, data_id: str, sample_id: str | None, tag_ids: Sequence[str]) -> None:
        project_id = self._request.project_id
        try:
            if sample_id is not None:
                await self._retrying(lambda: self._api.link_sample(data_id, sample_id))
            if tag_ids:
                await self._retrying(lambda: self._api.link_tags(data_id, tag_ids))
            if sample_id is not None and project_id is not None:
                await self._retrying(lambda: self._api.track_sample(project_id, sample_id))
        except AtomstreamError as error:
            raise LinkError(
                f"Stream {data_id} was created but not linked, so {await self._end(data_id)}. {error}",
                data_id=data_id,
            ) from error
        except asyncio.CancelledError:
            _log.warning(
                "Stream %s was created, but initialize was cancelled: the stream stays empty.", data_id
            )
            raise

    async def _end(self, data_id: str) -> str:
        try:
            signals = isinstance(self._request, CheckedSignals)
            end = self._api.end_signals if signals else self._api.end_stream
            await self._retrying(lambda: end(data_id))
        except AtomstreamError as error:
            return f"it should have been ended, which failed too ({error})"
        return "it has been ended"

    async def _retrying(
        self,
        call: Callable[[], Awaitable[T]],
        may_repeat: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        def in_time(error: BaseException) -> bool:
            next_attempt_s = time.monotonic() - self._started + (getattr(error, "retry_after_s", None) or 0.0)
            return may_repeat(error) and next_attempt_s < RETRY_LIMIT_S

        return await retrying(call, attempts=ATTEMPTS, may_repeat=in_time, sleep=self._sleep)
