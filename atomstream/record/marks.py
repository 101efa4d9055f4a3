"""Marks of a recording: kept here with their time, and sent until the server has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from atomstream.arguments import check_event
from atomstream.errors import AtomstreamError, ConfigError, RejectedError, ServiceError, StreamError
from atomstream.mark_words import kind_of

RETRY_S: Final = 5.0
"""Time in s until a mark is sent again after a failed request."""


@dataclass(slots=True)
class Mark:
    """One mark: text for people, kind, and time in UTC ms of this computer's clock."""

    label: str
    kind: str = ""
    time_ms: float = field(default_factory=lambda: 1000.0 * time.time())
    sent: bool = False

    def __post_init__(self) -> None:
        self.label = self.label.strip()
        if not self.label:
            raise ConfigError("The label of a mark is empty: write what happened.")
        self.kind = self.kind or kind_of(self.label)
        check_event(self.kind, self.label, None)


class MarkSender:
    """Sends the marks of one recording, in order, in a separate task.

    ``send`` sends one mark; ``notify`` is called with a sentence if the server refuses it.
    """

    def __init__(self, send: Callable[[Mark], Awaitable[object]], notify: Callable[[str], object]) -> None:
        self._send = send
        self._notify = notify
        self._new = asyncio.Event()
        self.marks: list[Mark] = []

    def add(self, mark: Mark) -> None:
        """Add a mark to be sent."""
        self.marks.append(mark)
        self._new.set()

    @property
    def unsent(self) -> list[Mark]:
        """The marks that are not sent."""
        return [mark for mark in self.marks if not mark.sent]

    async def run(self) -> None:
        """Send marks until cancelled; an outage of the server only delays them."""
        while True:
            self._new.clear()
            for mark in self.unsent:
                if not await self._try(mark):
                    break
            if self.unsent:
                await asyncio.sleep(RETRY_S)
            else:
                await self._new.wait()

    async def _try(self, mark: Mark) -> bool:
        try:
            await self._send(mark)
        except (RejectedError, StreamError) as error:
            self._notify(f"The mark {mark.label!r} was not accepted by the server: {error}")
        except ServiceError:
            return False
        except AtomstreamError as error:
            self._notify(f"The mark {mark.label!r} was not sent: {error}")
        mark.sent = True
        return True
