"""The service's calls, one method each and one attempt a call; who calls decides what is repeated.

Every method raises the errors of :mod:`atomstream.errors` under ``ServiceError`` and no others of HTTP's:
``ConnectionFailedError``, ``ServerBusyError``, ``UrlExpiredError`` and ``ChecksumMismatchError`` may pass,
``AuthenticationError`` wants a person, ``RejectedError`` (``NotFoundError``, ``ConflictError``) is final.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence

from atomstream import protocol
from atomstream.errors import ChecksumMismatchError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import ANNOUNCED, ANNOUNCEMENT, LOST_HEADER, MAX_LOST_CHARS
from atomstream.records import Json, ShardInfo, StreamSpec
from atomstream.service import payloads as wire
from atomstream.service.payloads import CreatedStream, NamedItem, NewStreamBody
from atomstream.service.results_api import ResultsApi
from atomstream.service.transport import Call, Transport
from atomstream.service.upload_body import Pieces, UploadBody, stated_crc32c

_log = logging.getLogger(__name__)


class ServiceApi:
    """One server's API. Usable from the loop that makes the first call; :meth:`close` it there.

    ``request_timeout_s`` bounds each call in seconds, ``upload_timeout_s`` how long an upload may make no
    progress (a slow uplink may take as long as it needs), ``connections`` how many may be
    open at once to each host (0: as many as are asked for).
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        *,
        request_timeout_s: float,
        upload_timeout_s: float,
        connections: int,
    ) -> None:
        self._transport = Transport(
            endpoint,
            api_key,
            request_timeout_s=request_timeout_s,
            upload_timeout_s=upload_timeout_s,
            connections=connections,
        )
        self.results = ResultsApi(self._transport)
        """The calls about results and events."""

    @property
    def endpoint(self) -> str:
        """The server's address, in its one spelling."""
        return self._transport.endpoint

    async def gateway_time(self) -> tuple[float, float]:
        """When the server received this request and when it answered, in its Unix ms. Carries no key."""
        call = Call(
            "read the server's time",
            "GET",
            protocol.TIME_PATH,
            keyed=False,
            headers={"Cache-Control": "no-store"},
        )
        return (await self._transport.call(call)).parse(wire.gateway_times)

    async def list_samples(self) -> list[NamedItem]:
        """All physical samples that the key sees."""
        return await self._list("list the physical samples", protocol.SAMPLES_PATH)

    async def list_tags(self) -> list[NamedItem]:
        """All tags that the key sees."""
        return await self._list("list the tags", protocol.TAGS_PATH)

    async def list_projects(self) -> list[NamedItem]:
        """All projects that the key sees."""
        return await self._list("list the projects", protocol.PROJECTS_PATH)

    async def _list(self, what: str, path: str) -> list[NamedItem]:
        return (await self._transport.call(Call(what, "GET", path))).parse(wire.named_list)

    async def create_sample(self, name: str) -> str:
        """Create a physical sample; its id. A name that is taken is a ``ConflictError`` with the detail."""
        return await self._create(f"create the physical sample {name!r}", protocol.SAMPLES_PATH, name)

    async def create_tag(self, name: str) -> str:
        """Create a tag; its id. A name that is taken is a ``RejectedError`` of status 400."""
        return await self._create(f"create the tag {name!r}", protocol.TAGS_PATH, name)

    async def create_project(self, name: str) -> str:
        """Create a project; its id. Only an atomstream server takes it; a name that is taken is a ``ConflictError``."""
        return await self._create(f"create the project {name!r}", protocol.PROJECTS_PATH, name)

    async def _create(self, what: str, path: str, name: str) -> str:
        call = Call(what, "POST", path, body=wire.pack({"name": name}))
        return (await self._transport.call(call)).parse(wire.new_id)

    async def create_stream(self, new: NewStreamBody) -> CreatedStream:
        """Create a stream. Repeat it only after an error whose ``never_sent`` is True."""
        call = Call(
            f"create the stream {new.name!r}",
            "POST",
            protocol.STREAMS_PATH,
            body=wire.pack(wire.new_stream_body(new)),
        )
        reply = await self._transport.call(call)
        announced = reply.headers.get(ANNOUNCEMENT, "").strip() == ANNOUNCED
        return CreatedStream(reply.parse(wire.stream_id), announced)

    async def link_sample(self, data_id: str, sample_id: str) -> None:
        """Link a stream to a physical sample."""
        body: dict[str, Json] = {"data_ids": [data_id], "physical_sample_id": sample_id}
        await self._post("link the physical sample", protocol.SAMPLE_LINKS_PATH, body)

    async def link_tags(self, data_id: str, tag_ids: Sequence[str]) -> None:
        """Put tags on a stream."""
        body: dict[str, Json] = {"data_ids": [data_id], "tag_ids": list(tag_ids)}
        await self._post("link the tags", protocol.TAG_LINKS_PATH, body)

    async def track_sample(self, project_id: str, sample_id: str) -> None:
        """Make a physical sample the one that a project follows."""
        path = protocol.path(protocol.TRACKING_PATH, project_id=project_id)
        body: dict[str, Json] = {"physical_sample_id": sample_id, "set_active": True}
        await self._post(f"set the tracking sample of project {project_id!r}", path, body)

    async def _post(self, what: str, path: str, body: dict[str, Json]) -> None:
        await self._transport.call(Call(what, "POST", path, body=wire.pack(body)))

    async def upload_url(self, spec: StreamSpec, info: ShardInfo) -> str:
        """A signed URL for one attempt at uploading a shard.

        Raises:
            TypeError: uint16 frames towards a server that did not announce itself.
        """
        call = Call(
            f"get an upload URL for chunk {info.index} of stream {spec.data_id}",
            "POST",
            protocol.UPLOAD_URLS_PATH,
            query=wire.upload_query(info.index),
            body=wire.pack(wire.upload_body(spec, info)),
        )
        return (await self._transport.call(call)).parse(wire.upload_url)

    async def put_shard(
        self, url: str, pieces: Pieces, nbytes: int, *, crc32c: int, what: str = "upload a chunk"
    ) -> int | None:
        """Upload a shard of ``nbytes`` bytes; the CRC-32C that the server states it received, if it does.

        ``crc32c`` is that of the bytes as they were encoded, wherever they have been since.
        ``pieces`` is iterated once, so each attempt wants a fresh iterable; an async generator is closed.
        ``what`` completes "Could not ..." in errors. What ``pieces`` raises is raised as it is.

        Raises:
            ChecksumMismatchError: the server states the checksum of another body.
            ShardError: ``pieces`` hold more or fewer bytes than ``nbytes``.
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
        """Say that a stream is complete; ``lost`` indices are told to a server that announced itself."""
        headers = _lost_headers(IndexSet(lost)) if announced else {}
        path = protocol.path(protocol.END_PATH, data_id=data_id)
        await self._transport.call(Call(f"end the stream {data_id}", "POST", path, headers=headers))

    async def stored_chunks(self, data_id: str) -> IndexSet:
        """The indices that a server of ours has of a stream; RejectedError from any other."""
        path = protocol.path(protocol.CHUNKS_PATH, data_id=data_id)
        call = Call(f"ask which chunks of stream {data_id} are stored", "GET", path)
        return (await self._transport.call(call)).parse(wire.stored_chunks)

    async def close(self) -> None:
        """Close all connections; harmless when they are closed already."""
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
