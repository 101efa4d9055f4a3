"""The places for uploads: how many bodies are received at the same time, shared out fairly.

Any upload may take a free place. When all are taken, a new upload gets the place of one that is too slow, or else of
one whose key or stream holds more places than its own. The upload that loses its place is answered with 503, and its
client sends the chunk again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from atomstream.server.http.responses import HttpError

YOUNG_S: Final = 1.0
"""Seconds after which an upload may lose its place because of a low rate."""


@dataclass(eq=False, slots=True)
class Upload:
    """A body that is being received: of which key and stream, since when, and its deadline.

    ``received`` bytes have arrived. ``begun`` is a time of the loop in s; the time in which the server itself wrote to
    the disk is added to it.
    """

    key: str
    stream: str
    begun: float
    received: int = 0
    lost_place: bool = False
    deleted: bool = False
    """True once its stream was deleted."""
    receiving: bool = False
    """True while ``timeout`` runs."""
    timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    def rate(self, now: float) -> float:
        """Bytes/s up to ``now``."""
        return self.received / max(now - self.begun, 1e-3)


class UploadPlaces:
    """``count`` places. An upload slower than ``min_rate`` bytes/s can lose its place. Used in the server's loop."""

    def __init__(self, count: int, min_rate: float) -> None:
        self._count = count
        self._min_rate = min_rate
        self._uploads: set[Upload] = set()

    def __len__(self) -> int:
        return len(self._uploads)

    def acquire(self, key: str, stream: str) -> Upload:
        """A place for an upload, which ends with :meth:`release`.

        Raises:
            HttpError: 503, all places are taken, and no other upload has to release its place.
        """
        now = asyncio.get_running_loop().time()
        if len(self._uploads) >= self._count:
            victim = self._slow(now) or self._greedy(key, stream, now)
            if victim is None:
                raise HttpError(
                    503, "The server accepts no more uploads at the moment.", headers={"Retry-After": "1"}
                )
            victim.lost_place = True
            self._uploads.discard(victim)
            if not victim.timeout.expired():
                victim.timeout.reschedule(now)
        upload = Upload(key, stream, now)
        self._uploads.add(upload)
        return upload

    def release(self, upload: Upload) -> None:
        """The upload has ended."""
        self._uploads.discard(upload)

    def receiving(self) -> list[Upload]:
        """The uploads whose bodies have not arrived completely."""
        return [upload for upload in self._uploads if upload.receiving]

    def _slow(self, now: float) -> Upload | None:
        slow = [
            upload
            for upload in self.receiving()
            if now - upload.begun >= YOUNG_S and upload.rate(now) < self._min_rate
        ]
        return min(slow, key=lambda upload: upload.rate(now), default=None)

    def _greedy(self, key: str, stream: str, now: float) -> Upload | None:
        """The slowest upload of the key with the most places, or else of such a stream of the same key.

        None if neither holds more places than it would leave to the new upload.
        """
        own = [upload for upload in self._uploads if upload.key == key]
        for uploads, name, wanted in ((self._uploads, "key", key), (own, "stream", stream)):
            held = Counter(getattr(upload, name) for upload in uploads)
            most = max(held.values(), default=0)
            if most > held[wanted] + 1:
                theirs = [one for one in uploads if one.receiving and held[getattr(one, name)] == most]
                if theirs:
                    return min(theirs, key=lambda upload: upload.rate(now))
        return None
