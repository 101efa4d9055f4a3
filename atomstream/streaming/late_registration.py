"""Streams that begin while the server is unreachable: they get a local id now, and are registered on the server later.

``initialize`` returns a local id if the server can't be reached. The spool keeps the frames and the arguments of
``initialize``. Each upload first registers the stream, so the uploader's repetitions, its pauses and its probes of the
server apply to the registration as well, also in a later process. The user keeps the local id for all methods.

An invalid sample, tag or project must not hold back the frames: the stream is then registered without it, and an error
is logged. It can be linked later on the server's page.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from atomstream.checks import checked_text
from atomstream.config import HOSTED_ENDPOINT
from atomstream.errors import (
    ConnectionFailedError,
    RejectedError,
    ServiceError,
    SpoolError,
    StreamGoneError,
    UntrustedServerError,
)
from atomstream.records import Json, StreamSpec
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import CreatedStream, NewSignalsBody, NewStreamBody
from atomstream.spool import LateRegistration, LateSignals, StreamSpool
from atomstream.streaming.registration import resolve_sample, resolve_tags
from atomstream.streaming.signal_request import CheckedSignals
from atomstream.streaming.stream_request import StreamRequest
from atomstream.system.log_privacy import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

LOCAL_PREFIX: Final = "local-"

_GATEWAY_STATUS: Final = frozenset({502, 503, 504})
"""HTTP statuses with which a proxy answers if the server behind it is not reachable."""


class RunOnDisk(Protocol):
    """Runs a call in the disk thread and returns its result."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """Return ``call()``."""


def server_is_unreachable(error: ServiceError) -> bool:
    """True if the server can't be reached now and a retry may help. False for an invalid certificate or a proxy that
    requires a login: a person must mend these."""
    if isinstance(error, ConnectionFailedError):
        return error.status is None and not isinstance(error, UntrustedServerError)
    return error.status in _GATEWAY_STATUS


def local_stream(request: StreamRequest, endpoint: str) -> tuple[StreamSpec, LateRegistration]:
    """Return the description of a stream with a new local id, and what is to be registered later.

    The kind of the server is not known yet. Only the hosted service's own address is certainly not an atomstream
    server, which also takes frame times and uint16.
    """
    spec = StreamSpec(
        data_id=f"{LOCAL_PREFIX}{uuid.uuid4()}",
        fps=request.fps,
        rpm=request.rpm,
        chunk_size=request.chunk_size,
        name=request.name,
        announced=endpoint != HOSTED_ENDPOINT,
    )
    return spec, LateRegistration(request.sample, request.project_id, request.tags, request.azimuth)


def local_signals(request: CheckedSignals, endpoint: str) -> tuple[StreamSpec, LateRegistration]:
    """As :func:`local_stream`, for a stream of signals."""
    spec = request.spec(f"{LOCAL_PREFIX}{uuid.uuid4()}", endpoint != HOSTED_ENDPOINT)
    signals = LateSignals(request.points_per_chunk, request.synth_source_id, request.marks)
    return spec, LateRegistration(request.sample, request.project_id, request.tags, signals=signals)


@dataclass(slots=True)
class _LocalStream:
    """One stream with a local id. ``spec`` has ``announced`` as the server stated it, once it is registered."""

    folder: StreamSpool
    spec: StreamSpec
    late: LateRegistration
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LateRegistrations:
    """The streams of a session that have a local id, and their registration on the server."""

    def __init__(self, run_on_disk: RunOnDisk) -> None:
        self._run_on_disk = run_on_disk
        self._streams: dict[str, _LocalStream] = {}

    def add(self, folder: StreamSpool) -> None:
        """Add the stream of a spool folder, new or of an earlier process. One without a local id is ignored."""
        manifest = folder.manifest
        if manifest.late is not None:
            self._streams[folder.data_id] = _LocalStream(folder, manifest.spec, manifest.late)

    def server_id(self, data_id: str) -> str:
        """Return the id of a stream on the server; other ids than local ones are returned unchanged.

        Raises:
            ConnectionFailedError: the stream is not registered yet.
        """
        registered = self.find_server_id(data_id)
        if registered is None:
            raise ConnectionFailedError(
                f"Stream {data_id} began while the server was unreachable and is not registered yet. Its frames are "
                "kept and sent when the server answers again.",
                never_sent=True,
            )
        return registered

    def find_server_id(self, data_id: str) -> str | None:
        """Return the id of a stream on the server; None if it is not registered yet."""
        stream = self._streams.get(data_id)
        return data_id if stream is None else stream.late.server_id or None

    def announced(self, spec: StreamSpec) -> bool:
        """Return whether the stream's server is an atomstream server; presumed so until it is registered."""
        stream = self._streams.get(spec.data_id)
        return spec.announced if stream is None else stream.spec.announced

    def is_pending(self, data_id: str) -> bool:
        """True if the stream has a local id and its registration is not complete."""
        stream = self._streams.get(checked_text("data_id", data_id))
        return stream is not None and not stream.late.complete

    async def keep_event(self, data_id: str, event: dict[str, Json]) -> None:
        """Keep an event of a pending stream in the spool; it is sent with the registration."""
        stream = self._streams[data_id]
        await self._save(stream, stream.spec, replace(stream.late, events=(*stream.late.events, event)))

    async def keep_calibration(self, data_id: str, calibration: dict[str, Json]) -> None:
        """Keep the calibration of a pending stream in the spool; it is sent with the registration."""
        stream = self._streams[data_id]
        await self._save(stream, stream.spec, replace(stream.late, calibration=calibration))

    async def keep_attributes(self, data_id: str, attributes: dict[str, Json]) -> None:
        """Keep attributes of a pending stream in the spool; they are sent with the registration."""
        stream = self._streams[data_id]
        merged = (stream.late.attributes or {}) | attributes
        await self._save(stream, stream.spec, replace(stream.late, attributes=merged))

    async def registered(self, spec: StreamSpec, api: ServiceApi) -> StreamSpec:
        """Return the description of the stream with its id on the server; registers it first if necessary.

        Raises:
            ServiceError: the server was not reached, or refuses the key. What was done is kept; call this again.
            StreamGoneError: the server refuses to create the stream.
        """
        stream = self._streams.get(spec.data_id)
        if stream is None:
            return spec
        if not stream.late.complete:
            async with stream.lock:
                if not stream.late.complete:
                    await _Attempt(stream, api, self._save).run()
        return replace(stream.spec, data_id=stream.late.server_id)

    async def _save(self, stream: _LocalStream, spec: StreamSpec, late: LateRegistration) -> None:
        stream.spec, stream.late = spec, late
        folder = stream.folder

        def write() -> None:
            folder.update_manifest(replace(folder.manifest, spec=spec, late=late))

        try:
            await self._run_on_disk(write)
        except SpoolError as error:
            _log.warning(
                "Stream %s: the state of its registration could not be written to the spool. A later process "
                "might register the stream again. %s",
                spec.data_id,
                error,
            )


class _Attempt:
    """One attempt to register a local stream: find sample and tags, create the stream, link it, send its events.

    The caller may add events meanwhile, so each step changes the newest state.
    """

    def __init__(
        self,
        stream: _LocalStream,
        api: ServiceApi,
        save: Callable[[_LocalStream, StreamSpec, LateRegistration], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._api = api
        self._save = save
        self._problems: list[str] = []

    async def run(self) -> None:
        """Register the stream; a step that an earlier attempt completed is not repeated.

        Raises:
            ServiceError, StreamGoneError: see :meth:`LateRegistrations.registered`.
        """
        late = self._stream.late  # the arguments of initialize do not change
        sample_id = await self._unless_refused(self._sample())
        tag_ids = await self._unless_refused(self._tags())
        if not late.server_id:
            await self._create()
        server_id = self._stream.late.server_id
        if sample_id is not None:
            await self._unless_refused(self._api.link_sample(server_id, sample_id))
            if late.project_id is not None:
                await self._unless_refused(self._api.track_sample(late.project_id, sample_id))
        if tag_ids:
            await self._unless_refused(self._api.link_tags(server_id, tag_ids))
        await self._send_annotations()
        await self._save(self._stream, self._stream.spec, replace(self._stream.late, complete=True))
        self._log_outcome(server_id)

    async def _sample(self) -> str | None:
        found = await resolve_sample(self._api, self._stream.late.sample, _once)
        return None if found is None else await found.id_or_create()

    async def _tags(self) -> list[str]:
        found = await resolve_tags(self._api, self._stream.late.tags, _once)
        return list(dict.fromkeys([await tag.id_or_create() for tag in found]))

    async def _create(self) -> None:
        spec, late = self._stream.spec, self._stream.late
        try:
            try:
                created = await self._create_in(late.project_id)
            except RejectedError as error:
                if late.project_id is None:
                    raise
                self._problems.append(str(error))
                created = await self._create_in(None)
        except RejectedError as error:
            raise StreamGoneError(
                f"The server refuses to create the stream {spec.data_id} ({spec.name}): {error} Its chunks are kept "
                "in the spool's quarantine.",
                data_id=spec.data_id,
            ) from error
        await self._save(
            self._stream,
            replace(spec, announced=created.announced),
            replace(self._stream.late, server_id=created.data_id),
        )

    async def _create_in(self, project_id: str | None) -> CreatedStream:
        spec, late = self._stream.spec, self._stream.late
        if (signals := late.signals) is None:
            return await self._api.create_stream(
                NewStreamBody(spec.name, spec.fps, spec.rpm, project_id, late.azimuth)
            )
        created = await self._api.create_signals(
            NewSignalsBody(
                spec.name, signals.points_per_chunk, project_id, signals.synth_source_id, signals.marks
            )
        )
        if signals.marks and not created.announced:
            self._problems.append("the server does not support rules for marks.")
        return created

    async def _send_annotations(self) -> None:
        """Send calibration, attributes and events until none is left.

        An event has an id, so a repeated one is stored once.
        """
        stream, api = self._stream, self._api.results
        data_id, late = stream.spec.data_id, stream.late
        if not stream.spec.announced and (late.events or late.calibration or late.attributes):
            self._problems.append("the server stores no events, no calibration and no attributes.")
            stream.late = replace(late, events=(), calibration=None, attributes=None)
        while (calibration := stream.late.calibration) is not None:
            await self._unless_refused(api.calibrate(data_id, calibration))
            if stream.late.calibration is calibration:
                stream.late = replace(stream.late, calibration=None)
        while (attributes := stream.late.attributes) is not None:
            await self._unless_refused(self._api.set_attributes(stream.late.server_id, attributes))
            if stream.late.attributes is attributes:
                stream.late = replace(stream.late, attributes=None)
        while stream.late.events:
            await self._unless_refused(api.mark(data_id, stream.late.events[0]))
            stream.late = replace(stream.late, events=stream.late.events[1:])

    async def _unless_refused(self, step: Awaitable[T]) -> T | None:
        """Await ``step``; None if the server refuses it permanently. Transient errors are raised."""
        try:
            return await step
        except RejectedError as error:
            self._problems.append(str(error))
            return None

    def _log_outcome(self, server_id: str) -> None:
        spec = self._stream.spec
        _log.warning("Stream %s (%s) is registered on the server as %s.", spec.data_id, spec.name, server_id)
        for problem in self._problems:
            _log.error("Stream %s was registered without a part of the request: %s", server_id, problem)


async def _once(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()
