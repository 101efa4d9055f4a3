"""pytest fixtures; put ``pytest_plugins = ["atomstream.testing"]`` into ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atomstream.testing.local_server import LocalServer
from atomstream.testing.memory_service import MemoryService


@pytest.fixture
def atomstream_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MemoryService]:
    """A :class:`MemoryService` in a thread; streamers without arguments use it.

    ``ATOMSTREAM_ENDPOINT``, ``ATOMSTREAM_API_KEY`` and ``ATOMSTREAM_SPOOL_DIR`` are set for the test.
    """
    with MemoryService() as service:
        _point_to(service, monkeypatch, tmp_path)
        yield service


@pytest.fixture
def atomstream_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalServer]:
    """A real server in a thread, with its archives under ``tmp_path``; streamers without arguments use it.

    ``ATOMSTREAM_ENDPOINT``, ``ATOMSTREAM_API_KEY`` and ``ATOMSTREAM_SPOOL_DIR`` are set for the test.
    """
    with LocalServer(tmp_path / "atomstream-data") as server:
        _point_to(server, monkeypatch, tmp_path)
        yield server


def _point_to(one: MemoryService | LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATOMSTREAM_ENDPOINT", one.url)
    monkeypatch.setenv("ATOMSTREAM_API_KEY", one.api_key)
    monkeypatch.setenv("ATOMSTREAM_SPOOL_DIR", str(tmp_path / "atomstream-spool"))
