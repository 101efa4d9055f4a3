"""One log line for many events of the same kind, such as malformed requests, so that nobody can fill the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
"""At most one line in this time, in s."""

MAX_ADDRESSES: Final = 256
"""Addresses that are counted apart; the others are counted together."""

OTHERS: Final = "other addresses"


class Tally:
    """Counts events by address. The first one is logged at once; then the number of those since, once a minute.

    ``write`` writes a line. ``what`` names the events in the plural, ``one`` a single one. Used in the server's loop.
    """

    def __init__(self, write: Callable[[str], object], one: str, what: str, every_s: float = EVERY_S) -> None:
        self._write = write
        self._one = one
        self._what = what
        self._every_s = every_s
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, address: str | None, about: str = "") -> None:
        """Count one event. ``about`` is added to the line of an event that is logged at once."""
        address = address or "an unknown address"
        if self._timer is not None:
            known = address in self._counts or len(self._counts) < MAX_ADDRESSES
            self._counts[address if known else OTHERS] += 1
            return
        self._write(
            f"{self._one} from {address}{about}. Further ones are counted; the next line follows in "
            f"{self._every_s:g} s at the earliest."
        )
        self._start_timer()

    def close(self) -> None:
        """Write the events that were not written yet, and stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_counts()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._timer_ended)

    def _timer_ended(self) -> None:
        self._timer = None
        if self._write_counts():
            self._start_timer()

    def _write_counts(self) -> bool:
        """Write one line with the counts and reset them; False if there is nothing to write."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return False
        address, most = counts.most_common(1)[0]
        if len(counts) == 1:
            self._write(f"{most} more {self._what} from {address} in {self._every_s:g} s.")
        else:
            self._write(
                f"{counts.total()} more {self._what} from {len(counts)} addresses in {self._every_s:g} s, "
                f"{most} of them from {address}."
            )
        return True
