"""The port that decides which process analyses which stream.

Streams are divided into partitions by their ids. One process at a time owns a partition, and receives the notices
about its streams. A notice only starts the work of the owner, which then reads the store. So a notice may come twice,
and a process that takes over a partition reads the stored chunks, not the earlier notices.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal, Protocol, TypeAlias

import msgspec

PARTITIONS: Final = 16
"""Partitions of all streams: the most processes that can share the analysis. Equal in all processes of a cluster."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a stream has changed.

    ``kind`` is ``chunk`` (chunk ``index`` is stored), ``end`` (the client has sent everything), ``inputs`` (a user
    has added an annotation), ``reanalyse`` (a user wants a new analysis) or ``deleted``.
    """

    data_id: str
    kind: Literal["chunk", "end", "inputs", "reanalyse", "deleted"]
    index: Annotated[int, msgspec.Meta(ge=0)] = 0


Handler: TypeAlias = Callable[[Notice], Awaitable[None]]
Lost: TypeAlias = Callable[[int], Awaitable[None]]


def partition_of(data_id: str) -> int:
    """The partition of a stream, 0 to ``PARTITIONS`` - 1."""
    return zlib.crc32(data_id.encode()) % PARTITIONS


class Placement(Protocol):
    """Delivers notices to the owner of their stream. Used in one event loop."""

    async def announce(self, notice: Notice) -> None:
        """Deliver a notice to the owner of its stream, now or as soon as there is one. Durable when it returns.

        Raises:
            BusUnavailableError: no answer; announce it again.
        """

    async def work(self, handler: Handler, lost: Lost) -> None:
        """Own partitions, until this is cancelled.

        ``handler`` is called for each notice of an owned partition. The calls begin in the order of the notices, and
        several run at the same time. A notice is done when its call has returned. After an exception, and after the
        death of the process, it is delivered again, perhaps to another process.

        ``lost`` is called when the process does not own a partition any more. Calls of ``handler`` that ran for it
        were cancelled before.
        """

    def listen(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """Call ``listener`` for each notice of any process while this one is connected; returns the end of that.

        For information only: notices of a time without connection are not delivered later.
        """
