"""Marks corrected on the servers of a cluster: the shared log decides which of two corrections holds, everywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atomstream.server.live.annotation_records import NewMark
from atomstream.server.live.event_history import EventChanges, EventConflictError
from atomstream.server.live.messages import EventMessage
from tests.live_helpers import growth
from tests.server.live.cluster_parts import cluster_parts, records, until


async def test_two_servers_correct_the_same_mark(tmp_path: Path) -> None:
    """One of them is refused, whatever both had seen; records and events are the same on all servers."""
    async with cluster_parts(tmp_path) as made:
        one, other = await made.replica("b"), await made.replica("c")
        event = await one.mark(NewMark("note", "x", 1.0))
        await other.mark(NewMark("note", "x", 1.0, id=event.id))  # the other server has seen it
        found = await asyncio.gather(
            one.correct_mark(event.id, 1, EventChanges(label="by one")),
            other.correct_mark(event.id, 1, EventChanges(label="by other")),
            return_exceptions=True,
        )
        (refused,) = [answer for answer in found if isinstance(answer, BaseException)]
        assert isinstance(refused, EventConflictError)
        (kept,) = [answer for answer in found if not isinstance(answer, BaseException)]
        assert refused.current == kept
        await one.correct_mark(event.id, 2, EventChanges(deleted=True))
        await made.send(growth(), 0)
        owner = await made.owner("analyst")
        await owner.analysed(0)
        for server in (one, other):
            await until(server, owner.seq)
            assert [event for event in server.events() if event.by == "user"] == []
            shown = [message for message in await records(server) if isinstance(message, EventMessage)]
            assert [(message.event.label, message.deleted is True) for message in shown] == [
                ("x", False),
                (kept.label, False),
                (kept.label, True),
            ]
