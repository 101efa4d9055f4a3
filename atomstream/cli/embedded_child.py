"""Child process of :mod:`atomstream.cli.embedded`: a server that exits when its standard input closes."""

from __future__ import annotations

import asyncio
import json
import sys

from atomstream.errors import ConfigError
from atomstream.server import ServerSettings, running_server


def main() -> None:
    """Read settings as a line of JSON, print a line of JSON with the URL, and serve until stdin closes."""
    settings = json.loads(sys.stdin.readline())
    try:
        asyncio.run(_serve(ServerSettings(**settings)))
    except ConfigError as error:
        print(json.dumps({"error": str(error)}), flush=True)


async def _serve(settings: ServerSettings) -> None:
    async with running_server(settings) as server:
        print(json.dumps({"url": server.url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
