"""What ``run`` reads from: any iterable as an async one, and large items cut to chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from atomstream.records import Frames, Stamp, StreamSpec

_END: Final = object()


async def items_of(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items of ``source``; a sync one is iterated in one thread of its own, for it may sleep.

    Raises:
        TypeError: not iterable. Else what ``source`` raises.
    """
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
        return
    if not isinstance(source, Iterable):
        raise TypeError(f"run() takes an iterable of frames, not {type(source).__name__}.")
    async with aclosing(_in_thread(iter(source))) as items:  # else its thread lives until it is collected
        async for item in items:
            yield item


async def _in_thread(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    # One thread for all items: camera handles and database cursors often belong to the thread of first use.
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, thread_name_prefix="atomstream-run")
    try:
        while (item := await loop.run_in_executor(executor, next, iterator, _END)) is not _END:
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def split(array: Frames, stamp: Stamp, spec: StreamSpec) -> Iterator[tuple[Frames, Stamp]]:
    """Cut (N, H, W) into chunks of at most ``chunk_size``, each with the stamp of its first frame."""
    for start in range(0, len(array), spec.chunk_size):
        later = replace(stamp, start_ms=stamp.start_ms + 1000.0 * start / spec.fps)
        yield array[start : start + spec.chunk_size], later
