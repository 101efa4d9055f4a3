"""The load balancer of a cluster on one machine (atomstream.cluster.balancer)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atomstream.cluster.balancer import balancing
from atomstream.cluster.engine import HOST, free_ports
from atomstream.errors import ConfigError


@asynccontextmanager
async def echo(port: int, name: bytes) -> AsyncIterator[None]:
    """A server that answers each line with its name and the line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(name + line)
        writer.close()

    async with await asyncio.start_server(serve, HOST, port):
        yield


async def ask(port: int) -> bytes:
    """The answer to one line; empty if the connection was closed without one."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(b" hello\n")
        return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_connections_go_to_all_servers_that_listen() -> None:
    """Connections alternate; without one of the servers all go to the other, and without both they are closed."""
    first, second, port = free_ports(3)
    async with balancing(port, [first, second]):
        async with echo(first, b"a"):
            async with echo(second, b"b"):
                assert {await ask(port) for _ in range(4)} == {b"a hello\n", b"b hello\n"}
            assert {await ask(port) for _ in range(4)} == {b"a hello\n"}
        assert await ask(port) == b""


async def test_a_port_in_use_is_named_with_the_option() -> None:
    """The error names the port and ``--port``, so that a second cluster can be started beside the first."""
    (port,) = free_ports(1)
    async with echo(port, b"other"):
        with pytest.raises(ConfigError, match=f"port {port}: .* --port 0"):
            async with balancing(port, [port]):
                pass
