"""Fixtures: a store, and the servers that share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomstream.server.ports.store import Store
from tests.server.archive.shared_archives import Server, UnreliableStore, servers


@pytest.fixture
def store(tmp_path: Path) -> UnreliableStore:
    return UnreliableStore(tmp_path / "store")


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    """Opens the stream with the cache folder of the server of that name; the first one creates it."""
    return servers(store, tmp_path)
