"""Time of a chunk update, a look-up and a search in a catalogue of 100,000 streams."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import insert

from atomstream.server.catalogue.database import Database, Stream, iso_now
from atomstream.server.catalogue.streams_table import EntryFilter, StreamsTable
from benchmarks.report import Row
from benchmarks.runner import Plan, main

FEW = 1_000


def measure(plan: Plan) -> list[Row]:
    """Measure the times for many streams; ``bare`` is the same with 1,000 streams, for comparison: a search over all
    streams takes longer with more of them.
    """
    many = 2 * FEW if plan.quick else 100 * FEW
    for count in (FEW, many):
        (plan.disk / f"catalogue-{count}").mkdir(parents=True)
    few_ms, many_ms = (asyncio.run(_times(plan.disk / f"catalogue-{count}", count)) for count in (FEW, many))
    return [
        Row(f"catalogue of {many} streams: {what}", "ms", {"ours": [many_ms[what]], "bare": [few_ms[what]]}, (),
            f"bare: with {FEW} streams")
        for what in many_ms
    ]  # fmt: skip


async def _times(folder: Path, count: int) -> dict[str, float]:
    database = await Database.open(folder)
    try:
        names = await _fill(database, count)
        entries, one = StreamsTable(database), names[count // 2]
        return {
            "note a chunk": await _median(lambda: entries.note_chunk(one, 240)),
            "look one up": await _median(lambda: entries.search(EntryFilter(data_ids=(one,)))),
            "find one by its name": await _median(
                lambda: entries.search(EntryFilter(keywords=(f"no. {count}",)))
            ),
        }
    finally:
        await database.close()


async def _fill(database: Database, count: int) -> list[str]:
    names = [str(uuid.uuid4()) for _ in range(count)]
    rows = [
        {
            "data_id": data_id, "name": f"Growth no. {k + 1}", "name_key": f"growth no. {k + 1}",
            "status": "success", "fps": 120.0, "rpm": 0.0, "azimuth_label": None, "project_id": None,
            "sample_id": None, "made": iso_now(), "last_updated": iso_now(), "n_frames": 240,
        }
        for k, data_id in enumerate(names)
    ]  # fmt: skip
    async with database.writing() as session:
        await session.execute(insert(Stream), rows)
    return names


async def _median(call: Callable[[], Awaitable[object]], times: int = 15) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await call()
        taken.append(1e3 * (time.perf_counter() - begun))
    return sorted(taken)[times // 2]


if __name__ == "__main__":
    main(measure)
