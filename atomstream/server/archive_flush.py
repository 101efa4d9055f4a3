"""Group commit: callers that arrive while a write is under way share the next one.

A 200 promises that the chunk is readable, so each commit has to wait until the metadata covers it; waiting
for a clock instead would delay answers, and writing once for each would not keep up with a slow disk. So
nobody waits for longer than the write under way plus one, and the rate of writes follows the disk's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Batch(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []
        self.done = False
        self.error: BaseException | None = None


class GroupCommit(Generic[T]):
    """Calls ``write(items)`` from one thread at a time, each item in exactly one call."""

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._state = threading.Condition()
        self._gathering: _Batch[T] = _Batch()
        self._busy = False

    def submit(self, item: T) -> None:
        """Return once a ``write`` that was given ``item`` has ended; raise what it raised."""
        with self._state:
            batch = self._gathering
            batch.items.append(item)
            while self._busy and not batch.done:
                self._state.wait(0.2)  # in slices: Windows locks ignore Ctrl-C otherwise
            if not batch.done:
                self._busy = True
                self._gathering = _Batch()
        if not batch.done:  # nobody else can write it now
            self._lead(batch)
        if batch.error is not None:
            raise batch.error

    def _lead(self, batch: _Batch[T]) -> None:
        try:
            self._write(batch.items)
        except BaseException as error:  # its followers must hear of it, whatever it is
            batch.error = error
        with self._state:
            batch.done = True
            self._busy = False
            self._state.notify_all()
