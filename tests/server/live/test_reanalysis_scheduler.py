"""Which re-analyses of a stream run, if many are requested at once."""

from __future__ import annotations

import asyncio
from typing import cast

from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.reanalysis import Reanalysis, ReanalysisScheduler


class Held:
    """A re-analysis that runs until ``go_on`` is set; ``began`` lists those that have begun."""

    go_on: asyncio.Event
    began: list[Held]

    def __init__(self, only: frozenset[str] | None) -> None:
        self.only = only
        self.stopped = False

    @property
    def is_whole(self) -> bool:
        return self.only is None

    def stop(self) -> None:
        self.stopped = True

    async def run(self) -> AnalyzerBatch | None:
        self.began.append(self)
        await self.go_on.wait()
        return None if self.stopped else AnalyzerBatch(0, 0, {})


async def run_all(first: frozenset[str] | None, then: list[frozenset[str] | None]) -> list[bool]:
    """Request ``first``, and ``then`` while it runs; returns which of them gave results."""
    Held.go_on, Held.began = asyncio.Event(), []
    scheduler = ReanalysisScheduler(
        lambda only: cast("Reanalysis", Held(only)), lambda: True, changed=lambda: None
    )
    tasks = [asyncio.create_task(scheduler.run(only)) for only in (first, *then)]
    while not Held.began:
        await asyncio.sleep(0)
    Held.go_on.set()
    results = [batch is not None for _, batch in await asyncio.gather(*tasks)]
    assert not scheduler.running
    return results


async def test_only_the_last_of_many_region_changes_is_computed() -> None:
    """Each change replaces the columns of those before it: these are not begun, and the running one is stopped."""
    changes = [frozenset({f"region:{number}"}) for number in range(50)]
    assert await run_all(changes[0], list(changes[1:])) == [False] * 49 + [True]
    assert [one.only for one in Held.began] == [changes[0], changes[-1]]


async def test_a_whole_one_is_not_stopped_by_changed_regions() -> None:
    """Regions that change meanwhile wait for it, and only the last of them are computed."""
    one, two = frozenset({"region:a"}), frozenset({"region:b"})
    assert await run_all(None, [one, two]) == [True, False, True]
    assert [held.only for held in Held.began] == [None, two]


async def test_a_whole_one_replaces_waiting_ones() -> None:
    """It computes the columns of all regions as well."""
    assert await run_all(frozenset({"region:a"}), [frozenset({"region:b"}), None]) == [False, False, True]
    assert [held.only for held in Held.began] == [frozenset({"region:a"}), None]
