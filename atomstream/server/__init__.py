"""The server: catalogue, ingest and storage for live RHEED streams, on any lab PC.

``async with running_server(ServerSettings(data_dir=...)) as server`` runs one in the loop at hand,
:func:`run_server` one until a signal, :func:`reindex` rebuilds a catalogue. Needs the extra ``[server]``.
"""

from __future__ import annotations

from atomstream.server.auth import ensure_key
from atomstream.server.reindex import ReindexReport, reindex
from atomstream.server.runner import RunningServer, run_server, running_server
from atomstream.server.settings import ServerSettings

__all__ = [
    "ReindexReport",
    "RunningServer",
    "ServerSettings",
    "ensure_key",
    "reindex",
    "run_server",
    "running_server",
]
