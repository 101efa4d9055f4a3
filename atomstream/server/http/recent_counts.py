"""Counts of recent events by name, in bounded memory: for the limits on wrong keys and passwords."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable


class RecentCounts:
    """Times of the last events of each name: at most ``most`` in ``within_s``.

    At most ``names`` names are stored; the one not seen for the longest time is dropped. ``clock`` is
    monotonic, in s.
    """

    def __init__(
        self, most: int, within_s: float, names: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._within_s = within_s
        self._names = names
        self._clock = clock
        self._times: OrderedDict[bytes, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of names."""
        return len(self._times)

    def count(self, name: bytes) -> float:
        """Count an event; 0, or the seconds until there is room for another one: then it was not counted."""
        now = self._clock()
        times = self._times.pop(name, None) or deque(maxlen=self._most)
        self._times[name] = times  # the most recent one is the last
        if len(self._times) > self._names:
            self._times.popitem(last=False)
        if len(times) == self._most and now - times[0] < self._within_s:
            return self._within_s - (now - times[0])
        times.append(now)
        return 0.0

    def uncount(self, name: bytes) -> None:
        """Remove the last event of that name from the count."""
        if times := self._times.get(name):
            times.pop()


def network_of(address: str | None) -> bytes:
    """What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which one person has as a whole."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return b"address unknown"
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return b"address " + (mapped.packed if mapped is not None else parsed.packed[:8])
    return b"address " + parsed.packed
