"""Reads the next chunks of a recording in a thread, while the current one is compressed and sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ReadAhead(Generic[Item]):
    """Iterator over ``items`` in order, of which at most ``depth`` (>= 1) and the one being read are held ahead.

    An exception of ``items`` is raised here, after all items before it. :meth:`close`, or the end of a ``with``
    block, ends the thread; it waits for the item that is being read, after it called ``stop``.
    """

    def __init__(
        self, items: Iterable[Item], depth: int = 1, stop: Callable[[], object] | None = None
    ) -> None:
        self._stop = stop
        self._items = iter(items)
        self._depth = depth
        self._ready: deque[Item] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="atomstream-read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed)
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the thread, at the latest after the item that it is reading."""
        if self._stop is not None:
            self._stop()
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> ReadAhead[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        iterator = self._items
        error: BaseException | None = None
        try:
            for item in iterator:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
                del item
        except BaseException as raised:
            error = raised
        close = getattr(iterator, "close", None)
        if close is not None:  # a generator closes its file in the thread that read it
            close()
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()
