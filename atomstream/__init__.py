"""atomstream streams live RHEED frames from a camera to a server that analyses them while the film grows.

:class:`RHEEDStreamer` is for scripts, notebooks and threads, :class:`AsyncRHEEDStreamer` for asyncio applications;
:class:`TimeseriesStreamer` and :class:`AsyncTimeseriesStreamer` stream signals of instruments; :class:`Client` and
:class:`AsyncClient` read what a server has, :func:`open_stream` opens a stream for xarray, and :func:`compare` puts
growths beside each other. All are imported at their first use, so ``import atomstream`` imports no other library.
:func:`live` is a widget for Jupyter; :func:`freeze_support` is for frozen applications that run a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomstream.version import __version__

if TYPE_CHECKING:
    from atomstream.client import AsyncClient, Client, compare, open_stream
    from atomstream.notebook import live
    from atomstream.streaming import (
        AsyncRHEEDStreamer,
        AsyncTimeseriesStreamer,
        RHEEDStreamer,
        TimeseriesStreamer,
    )
    from atomstream.system.child_process import freeze_support

__all__ = [
    "AsyncClient",
    "AsyncRHEEDStreamer",
    "AsyncTimeseriesStreamer",
    "Client",
    "RHEEDStreamer",
    "TimeseriesStreamer",
    "__version__",
    "compare",
    "freeze_support",
    "live",
    "open_stream",
]


def __getattr__(name: str) -> Any:
    """Import the streamers at their first use (PEP 562); their import may take 0.4 s."""
    if name in {"AsyncClient", "Client", "compare", "open_stream"}:
        from atomstream import client

        return getattr(client, name)
    if name.endswith("Streamer") and name in __all__:
        from atomstream import streaming

        return getattr(streaming, name)
    if name == "live":
        from atomstream.notebook import live

        return live
    if name == "freeze_support":
        from atomstream.system.child_process import freeze_support

        return freeze_support
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
