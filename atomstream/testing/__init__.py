"""Test doubles for programs that use atomstream: a service in memory, a real server, a simulated camera.

* :class:`MemoryService`: a small HTTP server that has the hosted service's protocol and keeps the chunks in memory.
  A test can make its requests fail. Needs no extra.
* :func:`running_server`: a real atomstream server with archive and live analysis. Needs the extra ``[server]``.
* :class:`SimulatedCamera`: frames of a growth with known truth, with counters and capture times.

The first two work in ``with`` (in a separate thread) and in ``async with`` (in the running event loop).

With pytest put ``pytest_plugins = ["atomstream.testing"]`` into ``conftest.py``. This gives the fixtures
``atomstream_service`` and ``atomstream_server``. pytest itself is imported only when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atomstream.cameras import CameraFrame
from atomstream.testing.camera import SimulatedCamera
from atomstream.testing.local_server import LocalServer, running_server
from atomstream.testing.memory_service import Attempt, MemoryService, ReceivedRequest

if TYPE_CHECKING:
    from atomstream.testing.fixtures import atomstream_server, atomstream_service

__all__ = [
    "Attempt",
    "CameraFrame",
    "LocalServer",
    "MemoryService",
    "ReceivedRequest",
    "SimulatedCamera",
    "atomstream_server",
    "atomstream_service",
    "running_server",
]

_FIXTURES: Final = {"atomstream_server", "atomstream_service"}


def __getattr__(name: str) -> Any:
    """Load the fixtures lazily (PEP 562), because they need pytest."""
    if name in _FIXTURES:
        try:
            from atomstream.testing import fixtures
        except ImportError as error:
            raise AttributeError(f"{__name__}.{name} needs pytest: {error}") from error
        return getattr(fixtures, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names; pytest finds the fixtures by them."""
    return sorted(__all__)
