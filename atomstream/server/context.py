"""The parts of one running server, for its request handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from atomstream.server.alarms.watch import AlarmWatch
from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.disk_errors import DiskState
from atomstream.server.documents import Documents
from atomstream.server.http.certificate import ServerCertificate
from atomstream.server.http.gate import Visible
from atomstream.server.http.measurements import Measurements
from atomstream.server.http.read_pools import ReadPools
from atomstream.server.http.upload_urls import UrlSigner
from atomstream.server.live.manager import ResultsManager
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.people.rights import Principal
from atomstream.server.ports.placement import Notice
from atomstream.server.retention.retention import Retention
from atomstream.server.settings import ServerSettings
from atomstream.server.signals.beside_frames import BesideFrames
from atomstream.server.signals.registry import SignalRegistry
from atomstream.server.streams.deletion import Deletion
from atomstream.server.streams.ingest import Ingest
from atomstream.server.streams.lifecycle import Lifecycle
from atomstream.server.streams.registry import StreamRegistry, unknown_stream
from atomstream.server.streams.signals import ServerSignals

if TYPE_CHECKING:
    from atomstream.server.ports.deferred_announcer import DeferredAnnouncer


@dataclass(frozen=True, slots=True)
class ServerContext:
    """All parts that a request handler may need. Made once at the start by :mod:`atomstream.server.parts`."""

    settings: ServerSettings
    catalogue: Catalogue
    streams_table: StreamsTable
    streams: StreamRegistry
    lifecycle: Lifecycle
    deletion: Deletion
    ingest: Ingest
    signer: UrlSigner
    signals: ServerSignals
    results: ResultsManager
    tool_signals: SignalRegistry
    beside_frames: BesideFrames
    readers: ReadPools
    disk: DiskState
    measurements: Measurements
    retention: Retention
    certificate: ServerCertificate | None
    documents: Documents
    alarms: AlarmWatch
    announcer: DeferredAnnouncer | None = None
    """Delivers notices to the processes that analyse; None where this server does so itself."""

    async def announce(self, notice: Notice) -> None:
        """Note that a stream has changed, for the process that analyses it; nothing if that is this server.

        Raises:
            BusUnavailableError: the bus does not answer; announce it again.
        """
        if self.announcer is not None:
            await self.announcer.announce(notice)


CONTEXT = web.AppKey("context", ServerContext)


def context_of(request: web.Request) -> ServerContext:
    """The context of the server that received ``request``."""
    return request.app[CONTEXT]


async def results_of(request: web.Request) -> StreamResults:
    """The results of the stream in the request's path; raises HttpError 404 if there is no such stream."""
    return await context_of(request).results.of(request.match_info["data_id"])


async def project_of(context: ServerContext, data_id: str) -> str | None:
    """The id of the project of a stream, of frames or of signals; None if it has none, or there is no such stream."""
    await context.tool_signals.find(data_id)
    if context.tool_signals.known([data_id]):
        project = context.tool_signals.about(data_id).project
        return project.id if project else None
    return await context.streams.project_of(data_id)


def visible_in(context: ServerContext) -> Visible:
    """The check whether the sender of a request may see a stream; raises HttpError 404, as for a stream that does not
    exist.
    """

    async def visible(principal: Principal, data_id: str) -> None:
        if not principal.sees(await project_of(context, data_id)):
            raise unknown_stream(data_id)

    return visible
