"""atomstream: live RHEED frames from the camera to the place of analysis, and results while the film grows.

The front doors are :class:`RHEEDStreamer` (plain scripts, notebooks, threads) and
:class:`AsyncRHEEDStreamer` (asyncio instrument-control applications). They load on first use, so that
``import atomstream`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomstream.version import __version__

if TYPE_CHECKING:
    from atomstream.streaming import AsyncRHEEDStreamer, RHEEDStreamer

__all__ = ["AsyncRHEEDStreamer", "RHEEDStreamer", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the front doors lazily (PEP 562): the import budget is 0.4 s."""
    if name in {"AsyncRHEEDStreamer", "RHEEDStreamer"}:
        from atomstream import streaming

        return getattr(streaming, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
