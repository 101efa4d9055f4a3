"""Rows of the fault campaign: a server that stops for minutes, and changes of the clock (P6, P7, P15, P17)."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

from atomstream import AsyncRHEEDStreamer
from tests.faults.fault_deaths import finished
from tests.faults.fault_helpers import FPS, Film, Tally
from tests.faults.fault_kernel import SteppedClock
from tests.faults.fault_rig import KEY, PATIENCE_S, Rig

YEAR_S = 365.25 * 86_400
STEPS_S = (3600.0, -3600.0, YEAR_S, -YEAR_S, 0.0)


def outage(rig: Rig, seconds: float, buffer_bytes: int) -> Tally:
    """The server is stopped while ``seconds`` of frames at 120 fps are pushed without pacing, with a second stream.

    No push waits, memory stays below its limit, the backlog is uploaded oldest first, and the second stream's new
    chunks do not wait for the end of the backlog.
    """
    tally = Tally(f"server: gone for {seconds / 60:g} min of {FPS:g} fps, two streams")
    asyncio.run(_outage(rig, int(seconds * FPS), buffer_bytes, tally))
    return tally


async def _outage(rig: Rig, n_frames: int, buffer_bytes: int, tally: Tally) -> None:
    film, other, spool = Film(1, n=24), Film(2), rig.new_spool()
    count = n_frames // film.n
    async with AsyncRHEEDStreamer(
        KEY, rig.server.url, None, spool, spool_min_free_bytes=0, clock_sync=False, buffer_bytes=buffer_bytes,
        upload_concurrency=1,
    ) as streamer:  # fmt: skip
        backlog, live = await _begin(streamer, film), await _begin(streamer, other)
        rig.server.kill()
        await _push_all(streamer, backlog, film, range(count), tally)
        await asyncio.to_thread(rig.server.start)
        await _push_all(streamer, live, other, range(5), tally)
        await streamer.flush(live, PATIENCE_S)
        if not (await streamer.stats())["streams"][backlog]["chunks_pending"]:
            tally.count_failure("lost", "the live stream waited for the whole backlog of the other")
        reports = [await streamer.finalize(data_id, 10 * PATIENCE_S) for data_id in (backlog, live)]
    for data_id, shown, total in ((backlog, film, count), (live, other, 5)):
        tally.check_stream(rig.server.stored_stream(data_id), range(total), range(total), shown)
    if [report["chunks_uploaded"] for report in reports] != [count, 5]:
        tally.count_failure("lost", f"the reports are wrong: {reports}")
    if not _in_order(rig.server.data / "streams" / backlog):
        tally.count_failure("lost", "the backlog did not arrive oldest first")


async def _begin(streamer: AsyncRHEEDStreamer, film: Film) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return await streamer.initialize(FPS, 0.0, film.n)


async def _push_all(
    streamer: AsyncRHEEDStreamer, data_id: str, film: Film, indices: range, tally: Tally
) -> None:
    for index in indices:
        await streamer.push(data_id, index, film.chunk(index))
        stats = await streamer.stats()
        if stats["buffer_bytes_used"] > stats["buffer_bytes_limit"]:
            tally.count_failure(
                "lost", f"memory exceeded its limit at chunk {index}: {stats['buffer_bytes_used']}"
            )


def _in_order(folder: Path) -> bool:
    """True if the shards were written in the order of their indices (with one upload at a time)."""
    shards = sorted(folder.glob("frames.zarr/frames/c/*/0/0"), key=lambda path: int(path.parts[-3]))
    times = [path.stat().st_mtime_ns for path in shards]
    return len(times) > 1 and times == sorted(times)


def stepping_clock(rig: Rig, tries: int) -> Tally:
    """The client's wall clock changes by an hour and by years, in both directions, while chunks are pending.

    The retention time is one day here, and no chunk is one day old.
    """
    tally = Tally("clock: the host's steps by hours and years, both ways")
    for k in range(tries):
        folder = rig.new_spool()
        folder.mkdir(exist_ok=True)
        clock, film = SteppedClock(folder), Film(k)
        pusher = rig.push(
            film, folder / "spool", env=clock.environment, count=60, pause_at=10, end="finalize",
            settings={"spool_retention_s": 86_400.0, "clock_sync": True},
        )  # fmt: skip
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
        for at, step_s in enumerate(STEPS_S):
            clock.step_to(step_s)
            pusher.read(f"accepted {19 + 10 * at}")
        rig.server.go_on()
        finished(rig, pusher, film, tally)
    return tally


def clock_between_processes(rig: Rig, tries: int) -> Tally:
    """The wall clock is wrong by years when the next process starts: no chunk expires."""
    tally = Tally("clock: years off at the next start")
    for k in range(tries):
        folder = rig.new_spool()
        folder.mkdir(exist_ok=True)
        clock, film = SteppedClock(folder), Film(k)
        steps = rig.leave(film, folder / "spool", 5)
        clock.step_to(STEPS_S[2 + k % 2])
        pusher = rig.push(
            film, folder / "spool", env=clock.environment, data_id=steps.data_id, count=3, end="finalize",
            settings={"spool_retention_s": 86_400.0},
        )  # fmt: skip
        later = pusher.ended()
        later.lines += steps.lines
        tally.check_stream(
            rig.server.stored_stream(steps.data_id), later.indices("accepted"), later.indices("pushing"), film
        )
    return tally
