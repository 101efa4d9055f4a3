"""Ends a child process of asyncio, and closes its pipes."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def end_child(process: asyncio.subprocess.Process) -> None:
    """Kill a child process, and wait until it has ended and its pipes are closed. What it wrote is discarded.

    If this is cancelled, that is done first: a killed process ends at once, and its pipes must not stay open, because
    asyncio can't close them after its loop has ended.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    ending = asyncio.ensure_future(_ended(process))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait([ending])
        raise


async def _ended(process: asyncio.subprocess.Process) -> None:
    with suppress(ConnectionError):
        await process.communicate()
