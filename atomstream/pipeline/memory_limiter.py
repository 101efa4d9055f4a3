"""Admission by bytes: the one place where back-pressure begins.

Every chunk in memory holds a :class:`Permit` for its bytes, from ``push`` to its receipt (or its eviction to
disk). Nothing behind the gate ever waits for room, so what was admitted can always move on: an encoder needs
no permit, an upload reads what it holds, and a receipt only gives back. That is why there is no deadlock,
whatever the limit.

Three rules decide (DECISIONS, "Memory" and "Fairness"):

* all permits together stay within ``limit``;
* a stream holds at most its share, limit / active streams, so that none starves another;
* where nothing is moving, a chunk of a stream that holds nothing enters alone, even one above the limit.
  Buffers that ``push_frame`` is still filling do not count as moving, for a camera may pause for ever, nor
  does the stream's own count as held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class Permit:
    """The right to hold ``nbytes`` in memory; given back exactly once."""

    __slots__ = ("_gate", "filling", "nbytes", "stream")

    def __init__(self, gate: MemoryLimiter, stream: str, nbytes: int, filling: bool) -> None:
        self._gate = gate
        self.stream = stream
        self.nbytes = nbytes
        self.filling = filling

    def shrink(self, nbytes: int) -> None:
        """Give back all but ``nbytes``: the raw frames are gone, the shard remains."""
        self._gate._change(self, nbytes)

    def release(self) -> None:
        """Give back everything; harmless when repeated."""
        self._gate._change(self, 0)

    def filled(self) -> None:
        """The ``push_frame`` buffer is complete and moves from now on."""
        self._gate._filled(self)


@dataclass(slots=True, eq=False)
class Waiter:
    """A push that waits at the gate; ``wake`` is called once, in any thread, when ``permit`` was granted.

    Woken without a permit, it waits in vain: the gate was shut.
    """

    stream: str
    nbytes: int
    filling: bool
    wake: Callable[[], None]
    permit: Permit | None = None


@dataclass(slots=True)
class _Holding:
    nbytes: int = 0
    filling: int = 0
    waiters: deque[Waiter] = field(default_factory=deque)


class MemoryLimiter:
    """Bounded by ``limit`` bytes; owned by a lock, so any thread may ask.

    ``try_enter`` never waits and is the primitive; waiting is built on ``queue``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._streams: dict[str, _Holding] = {}
        self._used = 0
        self._filling = 0
        self._shut = False

    @property
    def used(self) -> int:
        """Bytes under permit now."""
        return self._used

    @property
    def waiting(self) -> int:
        """Pushes that wait now."""
        with self._lock:
            return sum(len(holding.waiters) for holding in self._streams.values())

    def open(self, stream: str) -> None:
        """Count ``stream`` as active: the others' shares shrink."""
        with self._lock:
            self._streams.setdefault(stream, _Holding())

    def close(self, stream: str) -> None:
        """The stream ended; its share goes to the others (what it still holds is counted until released)."""
        with self._lock:
            holding = self._streams.get(stream)
            if holding is not None and not holding.nbytes and not holding.waiters:
                del self._streams[stream]
            granted = self._dispatch()
        _wake(granted)

    def try_enter(self, stream: str, nbytes: int, *, filling: bool = False) -> Permit | None:
        """A permit where there is room now and nobody of this stream waits already; else None."""
        with self._lock:
            holding = self._streams.setdefault(stream, _Holding())
            if self._shut or holding.waiters or not self._fits(holding, nbytes, filling):
                return None
            return self._grant(stream, nbytes, filling)

    def has_room(self, stream: str, nbytes: int) -> bool:
        """Whether :meth:`try_enter` would give a permit just now."""
        with self._lock:
            holding = self._streams.setdefault(stream, _Holding())
            return not self._shut and not holding.waiters and self._fits(holding, nbytes, filling=False)

    def queue(self, stream: str, nbytes: int, wake: Callable[[], None], *, filling: bool = False) -> Waiter:
        """Stand in line; a grant may come before this returns."""
        waiter = Waiter(stream, nbytes, filling, wake)
        with self._lock:
            if self._shut:
                granted = [waiter]
            else:
                self._streams.setdefault(stream, _Holding()).waiters.append(waiter)
                granted = self._dispatch()
        _wake(granted)
        return waiter

    def shut(self) -> None:
        """Grant nothing any more; who waits is woken without a permit."""
        with self._lock:
            self._shut = True
            waiters = [waiter for holding in self._streams.values() for waiter in holding.waiters]
            for holding in self._streams.values():
                holding.waiters.clear()
        _wake(waiters)

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting; a permit that was granted meanwhile is given back."""
        with self._lock:
            if waiter.permit is None and not self._shut:
                self._streams[waiter.stream].waiters.remove(waiter)
            granted = self._dispatch()
        _wake(granted)
        if waiter.permit is not None:
            waiter.permit.release()

    def _fits(self, holding: _Holding, nbytes: int, filling: bool) -> bool:
        # A chunk may enter beside its own stream's filling buffer, which nobody moves while push waits; another
        # filling buffer may not, for there is no end to those.
        at_rest = 0 if filling else holding.filling
        if self._used == self._filling and holding.nbytes == at_rest:
            return True
        if holding.nbytes and holding.nbytes + nbytes > self.limit // max(1, len(self._streams)):
            return False
        return self._used + nbytes <= self.limit

    def _grant(self, stream: str, nbytes: int, filling: bool) -> Permit:
        self._streams[stream].nbytes += nbytes
        self._used += nbytes
        if filling:
            self._count_filling(stream, nbytes)
        return Permit(self, stream, nbytes, filling)

    def _dispatch(self) -> list[Waiter]:
        """Grant to the heads of the lines, one stream after the other, until none fits."""
        granted: list[Waiter] = []
        progress = True
        while progress:
            progress = False
            for name, holding in list(self._streams.items()):
                head = holding.waiters[0] if holding.waiters else None
                if head is not None and self._fits(holding, head.nbytes, head.filling):
                    waiter = holding.waiters.popleft()
                    waiter.permit = self._grant(name, waiter.nbytes, waiter.filling)
                    granted.append(waiter)
                    # Its turn is over: behind the others at the next look.
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

    def _filled(self, permit: Permit) -> None:
        with self._lock:
            if permit.filling:
                permit.filling = False
                self._count_filling(permit.stream, -permit.nbytes)

    def _count_filling(self, stream: str, change: int) -> None:
        self._filling += change
        self._streams[stream].filling += change


def _wake(granted: list[Waiter]) -> None:
    # Outside of the lock: a waker may take locks of its own.
    for waiter in granted:
        waiter.wake()
