"""The HTTP API of the service. One method per call and one attempt per method; the caller decides about retries.

The methods raise subclasses of ``ServiceError`` from :mod:`atomstream.errors` and no exceptions of the HTTP library.
``ConnectionFailedError``, ``ServerBusyError``, ``UrlExpiredError`` and ``ChecksumMismatchError`` are transient.
``AuthenticationError`` can only be solved by the user. ``RejectedError`` (``NotFoundError``, ``ConflictError``) is
permanent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

from atomstream import protocol
from atomstream.errors import ChecksumMismatchError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import ANNOUNCED, ANNOUNCEMENT, LOST_HEADER, MAX_LOST_CHARS
from atomstream.records import Json, ShardInfo, StreamSpec
from atomstream.service import payloads
from atomstream.service.payloads import CreatedStream, ListedStream, NamedItem, NewSignalsBody, NewStreamBody
from atomstream.service.reading_api import ReadingApi
from atomstream.service.replies import Call, Reply
from atomstream.service.results_api import ResultsApi
from atomstream.service.transport import Transport
from atomstream.service.upload_body import Pieces, UploadBody, stated_crc32c
from atomstream.system.log_privacy import get_logger

_log = get_logger(__name__)


class ServiceApi:
    """The API of one server. Use and close it on the loop that makes the first call.

    ``request_timeout_s`` limits each call, in seconds. ``upload_timeout_s`` limits the time without progress of an
    upload; a slow uplink may take longer in total. ``connections`` limits the open connections per kind of request
    (0: no limit). ``server_id`` gives ``results`` the id of a stream on the server.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        *,
        request_timeout_s: float,
        upload_timeout_s: float,
        connections: int,
        server_id: Callable[[str], str] = str,
    ) -> None:
        self._transport = Transport(
            endpoint,
            api_key,
            request_timeout_s=request_timeout_s,
            upload_timeout_s=upload_timeout_s,
            connections=connections,
        )
        self.results = ResultsApi(self._transport, server_id)
        """The calls for results and events."""
        self.reading = ReadingApi(self._transport)
        """The calls that read streams, frames and results."""

    @property
    def endpoint(self) -> str:
        """The server's address in its normalised form."""
        return self._transport.endpoint

    async def gateway_time(self) -> tuple[float, float]:
        """The times of the server at which it received this request and answered, in Unix ms. Sent without the key."""
        call = Call(
            "read the server's time",
            "GET",
            protocol.TIME_PATH,
            keyed=False,
            headers={"Cache-Control": "no-store"},
        )
        return (await self._transport.call(call)).parse(payloads.gateway_times)

    async def list_samples(self) -> list[NamedItem]:
        """All physical samples that are visible with this key."""
        return await self._list("list the physical samples", protocol.SAMPLES_PATH)

    async def list_tags(self) -> list[NamedItem]:
        """All tags that are visible with this key."""
        return await self._list("list the tags", protocol.TAGS_PATH)

    async def list_projects(self) -> list[NamedItem]:
        """All projects that are visible with this key."""
        return await self._list("list the projects", protocol.PROJECTS_PATH)

    async def _list(self, what: str, path: str) -> list[NamedItem]:
        return (await self._transport.call(Call(what, "GET", path))).parse(payloads.named_list)

    async def create_sample(self, name: str) -> str:
        """Create a physical sample and return its id. An existing name raises ``ConflictError`` with the detail."""
        return await self._create(f"create the physical sample {name!r}", protocol.SAMPLES_PATH, name)

    async def create_tag(self, name: str) -> str:
        """Create a tag and return its id. An existing name raises ``RejectedError`` with status 400."""
        return await self._create(f"create the tag {name!r}", protocol.TAGS_PATH, name)

    async def create_project(self, name: str) -> str:
        """Create a project (atomstream server only) and return its id. An existing name raises ``ConflictError``."""
        return await self._create(f"create the project {name!r}", protocol.PROJECTS_PATH, name)

    async def _create(self, what: str, path: str, name: str) -> str:
        call = Call(what, "POST", path, body=payloads.pack({"name": name}))
        return (await self._transport.call(call)).parse(payloads.new_id)

    async def create_stream(self, new: NewStreamBody) -> CreatedStream:
        """Create a stream. Repeat this only after an error with ``never_sent`` True: otherwise it may exist already."""
        call = Call(
            f"create the stream {new.name!r}",
            "POST",
            protocol.STREAMS_PATH,
            body=payloads.pack(payloads.new_stream_body(new)),
        )
        return await self._created(call, payloads.stream_id)

    async def create_signals(self, new: NewSignalsBody) -> CreatedStream:
        """Create a stream of signals. Repeat this only after an error with ``never_sent`` True."""
        call = Call(
            f"create the stream of signals {new.name!r}",
            "POST",
            protocol.SIGNALS_PATH,
            body=payloads.pack(payloads.new_signals_body(new)),
        )
        return await self._created(call, payloads.signals_id)

    async def _created(self, call: Call, id_of: Callable[[Json], str]) -> CreatedStream:
        reply = await self._transport.call(call)
        announced = reply.headers.get(ANNOUNCEMENT, "").strip() == ANNOUNCED
        return CreatedStream(reply.parse(id_of), announced)

    async def send_signals(self, body: bytes, *, several: bool, what: str) -> None:
        """Send a chunk of points, as JSON, of one channel or of ``several``. An equal repeat changes nothing."""
        path = protocol.SIGNALS_CHUNKS_PATH if several else protocol.SIGNALS_CHUNK_PATH
        await self._transport.call(Call(what, "POST", path, body=body))

    async def end_signals(self, data_id: str) -> None:
        """Report the end of a stream of signals."""
        path = protocol.path(protocol.SIGNALS_END_PATH, data_id=data_id)
        await self._transport.call(Call(f"end the stream of signals {data_id}", "POST", path))

    async def link_sample(self, data_id: str, sample_id: str) -> None:
        """Link a stream to a physical sample."""
        body: dict[str, Json] = {"data_ids": [data_id], "physical_sample_id": sample_id}
        await self._post("link the physical sample", protocol.SAMPLE_LINKS_PATH, body)

    async def link_tags(self, data_id: str, tag_ids: Sequence[str]) -> None:
        """Add tags to a stream."""
        body: dict[str, Json] = {"data_ids": [data_id], "tag_ids": list(tag_ids)}
        await self._post("link the tags", protocol.TAG_LINKS_PATH, body)

    async def track_sample(self, project_id: str, sample_id: str) -> None:
        """Set the tracking sample of a project."""
        path = protocol.path(protocol.TRACKING_PATH, project_id=project_id)
        body: dict[str, Json] = {"physical_sample_id": sample_id, "set_active": True}
        await self._post(f"set the tracking sample of project {project_id!r}", path, body)

    async def _post(self, what: str, path: str, body: dict[str, Json]) -> None:
        await self._transport.call(Call(what, "POST", path, body=payloads.pack(body)))

    async def upload_url(self, spec: StreamSpec, info: ShardInfo) -> str:
        """Request a signed URL for one attempt to upload a shard.

        Raises:
            TypeError: uint16 frames for a server that is not an atomstream server.
        """
        call = Call(
            f"get an upload URL for chunk {info.index} of stream {spec.data_id}",
            "POST",
            protocol.UPLOAD_URLS_PATH,
            query=payloads.upload_query(info.index),
            body=payloads.pack(payloads.upload_body(spec, info)),
        )
        return (await self._transport.call(call)).parse(payloads.upload_url)

    async def put_shard(
        self, url: str, pieces: Pieces, nbytes: int, *, crc32c: int, what: str = "upload a chunk"
    ) -> int | None:
        """Upload a shard of ``nbytes`` bytes. Returns the CRC-32C of the received body, if the server states it.

        ``crc32c`` is the checksum from the encoder. ``pieces`` is iterated once, so each attempt needs a new iterable;
        an async generator is closed. Errors of ``pieces`` are raised unchanged. ``what`` completes "Could not ..." in
        error messages.

        Raises:
            ChecksumMismatchError: the server states another checksum.
            ShardError: ``pieces`` have more or fewer bytes than ``nbytes``.
        """
        async with contextlib.aclosing(UploadBody(pieces, nbytes)) as body:
            reply = await self._transport.put(what, url, body)
        stated = stated_crc32c(reply.headers)
        if stated is not None and stated != crc32c:
            raise ChecksumMismatchError(
                f"Could not {what}: the server received other bytes than were sent "
                f"(CRC-32C {stated:08x}, not {crc32c:08x}). It can be sent again.",
                status=reply.status,
            )
        return stated

    async def end_stream(self, data_id: str, lost: Iterable[int] = (), *, announced: bool = False) -> None:
        """Report the end of a stream. ``lost`` indices are sent to an atomstream server (``announced``) only."""
        headers = _lost_headers(IndexSet(lost)) if announced else {}
        path = protocol.path(protocol.END_PATH, data_id=data_id)
        await self._transport.call(Call(f"end the stream {data_id}", "POST", path, headers=headers))

    async def stored_chunks(self, data_id: str) -> IndexSet:
        """The indices of a stream that the server has stored. Other servers than atomstream raise RejectedError."""
        path = protocol.path(protocol.CHUNKS_PATH, data_id=data_id)
        call = Call(f"ask which chunks of stream {data_id} are stored", "GET", path)
        return (await self._transport.call(call)).parse(payloads.stored_chunks)

    async def list_streams(self, keywords: Sequence[str] = ()) -> list[ListedStream]:
        """All streams (with all ``keywords``) that are visible with this key, the newest first; in pages."""
        found: list[ListedStream] = []
        while True:
            after = found[-1].data_id if found else ""
            query = payloads.entries_query(keywords, after)
            call = Call("list the streams", "GET", protocol.ENTRIES_PATH, query=query)
            page = (await self._transport.call(call)).parse(payloads.listed_streams)
            found += page
            if len(page) < payloads.PAGE:
                return found

    async def rename_stream(self, data_id: str, name: str) -> None:
        """Give a stream another name (atomstream server only)."""
        await self._change_stream(f"rename the stream {data_id}", data_id, {"name": name})

    async def move_stream(self, data_id: str, to: dict[str, Json]) -> tuple[str, ...]:
        """Move a stream to another project or sample (atomstream server only); returns a short text about each change.

        ``to`` has ``project_id`` or ``physical_sample_id``, None: to none; or ``sample_name``, of a sample that is made
        if there is none.
        """
        reply = await self._change_stream(f"move the stream {data_id}", data_id, to)
        return reply.parse(payloads.changes_made)

    async def set_attributes(self, data_id: str, attributes: dict[str, Json]) -> None:
        """Add attributes to a stream (atomstream server only); existing ones of the same name are replaced."""
        await self._change_stream(f"set attributes of stream {data_id}", data_id, {"attributes": attributes})

    async def _change_stream(self, what: str, data_id: str, body: dict[str, Json]) -> Reply:
        path = protocol.path(protocol.STREAM_PATH, data_id=data_id)
        return await self._transport.call(Call(what, "PATCH", path, body=payloads.pack(body)))

    async def delete_stream(self, data_id: str) -> None:
        """Delete a stream for ever (atomstream server only). One that was deleted before raises NotFoundError, 410."""
        path = protocol.path(protocol.STREAM_PATH, data_id=data_id)
        await self._transport.call(Call(f"delete the stream {data_id}", "DELETE", path))

    async def retention(self, *, preview: bool = False) -> Json:
        """The report of the rules of retention: of the last run, or (``preview``) of what a run would do."""
        path = protocol.RETENTION_PREVIEW_PATH if preview else protocol.RETENTION_PATH
        return (await self._transport.call(Call("ask for the report of the retention", "GET", path))).parse(
            lambda data: data
        )

    async def run_retention(self) -> None:
        """Begin to apply the rules of retention (atomstream server only); ConflictError while a run goes on."""
        await self._transport.call(
            Call("apply the rules of retention", "POST", protocol.RETENTION_RUN_PATH, body=b"{}")
        )

    async def export_stream(
        self,
        data_id: str,
        to: str,
        write: Callable[[bytes], object],
        *,
        step: int = 1,
        pixels: bool = True,
        at_s: float | None = None,
    ) -> None:
        """Download a stream as a file of the format ``to`` (atomstream server only), in pieces given to ``write``."""
        path = protocol.path(protocol.EXPORT_PATH, data_id=data_id)
        query = f"to={payloads.path_part(to)}&step={step}&pixels={int(pixels)}"
        if at_s is not None:
            query += f"&time={at_s}"
        await self._transport.download(Call(f"export the stream {data_id}", "GET", path, query), write)

    async def close(self) -> None:
        """Close all connections. Repeated calls have no effect."""
        await self._transport.close()


def _lost_headers(lost: IndexSet) -> dict[str, str]:
    if not lost:
        return {}
    text = lost.text(MAX_LOST_CHARS)
    if len(text) < len(str(lost)):
        _log.warning(
            "%d lost chunks are too many for a header; the server receives the first ones.", len(lost)
        )
    return {LOST_HEADER: text}
