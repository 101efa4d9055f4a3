"""A queue between the thread of a driver that calls back with frames, and the thread that grabs them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from atomstream.cameras.camera import CameraFrame

FRAMES: Final = 256
"""Largest number of frames in the queue. A frame that arrives when it is full is discarded; the next counter shows the
gap."""


class FrameQueue:
    """Frames in the order in which the driver delivered them; an error comes after the frames before it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[CameraFrame | Exception] = deque()

    def put(self, item: CameraFrame | Exception) -> None:
        """Add a frame, or the error that ends them. It does not wait, because the driver's thread calls it."""
        with self._changed:
            if len(self._items) < FRAMES or isinstance(item, Exception):
                self._items.append(item)
                self._changed.notify()

    def get(self, timeout_s: float) -> CameraFrame | None:
        """Take the next frame; None if there is none within ``timeout_s`` seconds. Raises an error that was put."""
        with self._changed:
            self._changed.wait_for(lambda: self._items, timeout_s)
            item = self._items.popleft() if self._items else None
        if isinstance(item, Exception):
            raise item
        return item

    def clear(self) -> None:
        """Remove all frames and errors."""
        with self._changed:
            self._items.clear()
