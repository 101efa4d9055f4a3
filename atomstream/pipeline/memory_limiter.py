"""The memory limit of all streams together. Back-pressure begins here and nowhere else.

Every chunk in memory holds a :class:`Permit` for its bytes, from ``push`` until the server has confirmed it (or until
its bytes were evicted to disk). No later stage waits for memory, so an accepted chunk can always continue: an encoder
needs no further permit, an upload reads memory that is already reserved, and a confirmation only releases. Therefore
no limit, however small, can lead to a deadlock.

Three rules decide whether a chunk may enter (docs/decisions/0003-memory-budget.md, 0004-fairness.md):

* All permits together stay within ``limit``.
* One stream holds at most its share, ``limit`` divided by the number of active streams. So no stream starves another.
* If no chunk is in progress, a stream that holds nothing may enter with one chunk, even one above the limit. Buffers
  that ``push_frame`` is still filling do not count as in progress, because a camera may pause for any time. The
  stream's own filling buffer does not count as held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class Permit:
    """A reservation of ``nbytes`` bytes of memory."""

    __slots__ = ("_limiter", "filling", "nbytes", "stream")

    def __init__(self, limiter: MemoryLimiter, stream: str, nbytes: int, filling: bool) -> None:
        self._limiter = limiter
        self.stream = stream
        self.nbytes = nbytes
        self.filling = filling

    def shrink(self, nbytes: int) -> None:
        """Release all but ``nbytes``: the raw frames are gone, the shard remains. Never grows a permit."""
        self._limiter._change(self, nbytes)

    def release(self) -> None:
        """Release all bytes. Repeated calls have no effect."""
        self._limiter._change(self, 0)

    def mark_filled(self) -> None:
        """The ``push_frame`` buffer is complete: from now on it counts as in progress."""
        self._limiter._mark_filled(self)


@dataclass(slots=True, eq=False)
class Waiter:
    """One push that waits for memory.

    ``wake`` is called once, in any thread. ``permit`` is then set, or None if the limiter was closed.
    """

    stream: str
    nbytes: int
    filling: bool
    wake: Callable[[], None]
    permit: Permit | None = None


@dataclass(slots=True)
class _StreamUsage:
    nbytes: int = 0
    filling: int = 0
    waiters: deque[Waiter] = field(default_factory=deque)


class MemoryLimiter:
    """Grants permits for at most ``limit`` bytes. Any thread may call its methods.

    ``try_acquire`` never waits. Waiting is built on ``enqueue``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._streams: dict[str, _StreamUsage] = {}
        self._used = 0
        self._filling = 0
        self._closed = False

    @property
    def used(self) -> int:
        """Bytes that are reserved now."""
        return self._used

    @property
    def waiting_count(self) -> int:
        """The number of pushes that wait for memory now."""
        with self._lock:
            return sum(len(usage.waiters) for usage in self._streams.values())

    def add_stream(self, stream: str) -> None:
        """Count ``stream`` as active: the shares of the others become smaller."""
        with self._lock:
            self._streams.setdefault(stream, _StreamUsage())

    def remove_stream(self, stream: str) -> None:
        """Give the share of a stream that has ended to the others. It counts as long as it still holds memory."""
        with self._lock:
            usage = self._streams.get(stream)
            if usage is not None and not usage.nbytes and not usage.waiters:
                del self._streams[stream]
            granted = self._dispatch()
        _wake(granted)

    def try_acquire(self, stream: str, nbytes: int, *, filling: bool = False) -> Permit | None:
        """A permit, if there is memory now and no earlier push of this stream waits; otherwise None."""
        with self._lock:
            usage = self._streams.setdefault(stream, _StreamUsage())
            if self._closed or usage.waiters or not self._fits(usage, nbytes, filling):
                return None
            return self._grant(stream, nbytes, filling)

    def has_room(self, stream: str, nbytes: int) -> bool:
        """True if :meth:`try_acquire` would return a permit now."""
        with self._lock:
            usage = self._streams.setdefault(stream, _StreamUsage())
            return not self._closed and not usage.waiters and self._fits(usage, nbytes, filling=False)

    def enqueue(self, stream: str, nbytes: int, wake: Callable[[], None], *, filling: bool = False) -> Waiter:
        """Add a waiter at the end of the stream's queue. It may be granted before this method returns."""
        waiter = Waiter(stream, nbytes, filling, wake)
        with self._lock:
            if self._closed:
                granted = [waiter]
            else:
                self._streams.setdefault(stream, _StreamUsage()).waiters.append(waiter)
                granted = self._dispatch()
        _wake(granted)
        return waiter

    def cancel(self, waiter: Waiter) -> None:
        """Remove a waiter. A permit that it was granted meanwhile is released."""
        with self._lock:
            if waiter.permit is None and not self._closed:
                self._streams[waiter.stream].waiters.remove(waiter)
            granted = self._dispatch()
        _wake(granted)
        if waiter.permit is not None:
            waiter.permit.release()

    def close(self) -> None:
        """Grant no more permits. All waiters are woken without one."""
        with self._lock:
            self._closed = True
            waiters = [waiter for usage in self._streams.values() for waiter in usage.waiters]
            for usage in self._streams.values():
                usage.waiters.clear()
        _wake(waiters)

    def _fits(self, usage: _StreamUsage, nbytes: int, filling: bool) -> bool:
        # A chunk may enter although its own stream has a filling buffer, because nothing completes that buffer while
        # push waits. Another filling buffer may not enter: there would be no limit to their number.
        own_filling = 0 if filling else usage.filling
        if self._used == self._filling and usage.nbytes == own_filling:
            return True
        if usage.nbytes and usage.nbytes + nbytes > self.limit // max(1, len(self._streams)):
            return False
        return self._used + nbytes <= self.limit

    def _grant(self, stream: str, nbytes: int, filling: bool) -> Permit:
        self._streams[stream].nbytes += nbytes
        self._used += nbytes
        if filling:
            self._count_filling(stream, nbytes)
        return Permit(self, stream, nbytes, filling)

    def _dispatch(self) -> list[Waiter]:
        """Grant permits to the first waiter of each stream in turn, until none fits."""
        granted: list[Waiter] = []
        progress = True
        while progress:
            progress = False
            for name, usage in list(self._streams.items()):
                head = usage.waiters[0] if usage.waiters else None
                if head is not None and self._fits(usage, head.nbytes, head.filling):
                    waiter = usage.waiters.popleft()
                    waiter.permit = self._grant(name, waiter.nbytes, waiter.filling)
                    granted.append(waiter)
                    # Move the stream behind the others for the next pass.
                    self._streams[name] = self._streams.pop(name)
                    progress = True
        return granted

    def _change(self, permit: Permit, nbytes: int) -> None:
        with self._lock:
            freed = permit.nbytes - min(nbytes, permit.nbytes)
            permit.nbytes -= freed
            self._used -= freed
            if permit.filling:
                self._count_filling(permit.stream, -freed)
            self._streams[permit.stream].nbytes -= freed
            granted = self._dispatch() if freed else []
        _wake(granted)

    def _mark_filled(self, permit: Permit) -> None:
        with self._lock:
            if permit.filling:
                permit.filling = False
                self._count_filling(permit.stream, -permit.nbytes)

    def _count_filling(self, stream: str, change: int) -> None:
        self._filling += change
        self._streams[stream].filling += change


def _wake(granted: list[Waiter]) -> None:
    # Without the lock: the callback may acquire other locks.
    for waiter in granted:
        waiter.wake()
