"""A server for the commands, and the environment to reach it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live_server import ThreadedServer


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    """Start a server for one test."""
    return serve_in_thread()


@pytest.fixture
def env(server: ThreadedServer, tmp_path: Path) -> dict[str, str]:
    """Return the environment variables that a user would set."""
    return {
        "ATOMSTREAM_ENDPOINT": server.url,
        "ATOMSTREAM_API_KEY": server.api_key,
        "ATOMSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port that is bound but does not accept connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
