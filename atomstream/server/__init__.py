"""The server: catalogue, ingest and storage for live RHEED streams, on any lab PC.

``async with running_server(ServerSettings(data_dir=...)) as server`` runs a server in the present event loop,
:func:`run_server` runs one until a signal, :func:`reindex` rebuilds a catalogue. Needs the extra ``[server]``. The
names are imported on first use: a worker process needs neither database nor HTTP, and starts faster without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from atomstream.server.catalogue.reindex import ReindexReport, reindex
    from atomstream.server.http.api_keys import ensure_key
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
_MODULES: Final = {
    "ReindexReport": "catalogue.reindex",
    "RunningServer": "runner",
    "ServerSettings": "settings",
    "ensure_key": "http.api_keys",
    "reindex": "catalogue.reindex",
    "run_server": "runner",
    "running_server": "runner",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
