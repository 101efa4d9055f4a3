"""Wrong API keys: counted by address and by the key's beginning, slowed down, and logged as one line for many.

A right key is always accepted at once, so wrong keys of other clients can't lock the owner out, also not behind a
proxy, where all callers have one address. That is safe because a key has at least 128 bits: what protects it is that it
can't be found by trying, at any rate. The limit keeps attempts from using up the server and from filling its log.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Final

from atomstream.server.http.recent_counts import RecentCounts, network_of
from atomstream.server.http.responses import HttpError
from atomstream.server.http.tally import Tally
from atomstream.system.log_privacy import get_logger

MAX_WRONG: Final = 10
"""Wrong keys from one address, or with one beginning, in ``WITHIN_S`` that are answered at once with 401."""

WITHIN_S: Final = 60.0

DELAY_S: Final = 1.0
"""How long the answer to a wrong key beyond the limit is held back."""

MAX_DELAYED: Final = 64
"""Answers that are held back at the same time; further ones are given at once, and their connection is closed."""

PREFIX_CHARS: Final = 12
"""Characters at the beginning of a key that are counted together: ``atst_`` and seven more."""

_MAX_COUNTED: Final = 4096
"""Largest number of addresses and beginnings that are counted; the one not seen for the longest time is dropped."""


class GuessLimiter:
    """Counts wrong keys of one server. Used in the server's loop. ``clock`` is monotonic, in s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, delay_s: float = DELAY_S) -> None:
        self._delay_s = delay_s
        self._delayed = 0
        self._wrong = RecentCounts(MAX_WRONG, WITHIN_S, _MAX_COUNTED, clock)
        self._tally = Tally(
            get_logger("atomstream.server").warning,
            "a wrong API key was refused",
            "wrong API keys were refused",
        )

    async def refuse(self, address: str | None, key: str, where: str, sentence: str) -> HttpError:
        """The answer to a wrong key: 401 with ``sentence``, or after a delay 429 if there were too many.

        ``where`` names the request in the log. The key itself is not logged.
        """
        self._tally.note(address, f" ({where})")
        # Both are counted, so "or" would be wrong: it skips the second one.
        wait_s = max(self._wrong.count(network_of(address)), self._wrong.count(_beginning(key)))
        if not wait_s:
            return HttpError(401, sentence)
        headers = {"Retry-After": str(int(wait_s) + 1)}
        if self._delayed < MAX_DELAYED:
            self._delayed += 1
            try:
                await asyncio.sleep(self._delay_s)
            finally:
                self._delayed -= 1
        else:
            headers["Connection"] = "close"
        return HttpError(
            429, "Too many wrong API keys were tried. A right key is still accepted at once.", headers=headers
        )

    def close(self) -> None:
        """Log the keys that were counted and not logged yet."""
        self._tally.close()


def _beginning(key: str) -> bytes:
    """The beginning of a key, hashed: memory that someone can read holds no parts of keys."""
    return b"key " + hashlib.sha256(key[:PREFIX_CHARS].encode("utf-8", "surrogateescape")).digest()[:16]
