"""Rows of the fault campaign: processes killed by SIGKILL, at random moments or at a system call (P10, P19)."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from atomstream.records import StreamReport
from tests.faults.fault_helpers import Film, StepLog, StoredStream, Tally
from tests.faults.fault_kernel import injected
from tests.faults.fault_rig import Pusher, Rig

CALLS = ("rename", "fdatasync", "fsync", "writev", "unlink", "flock")
LIVED_ENOUGH = 3


def killed_client(rig: Rig, tries: int, draw: Random) -> Tally:
    """SIGKILL at random moments, with and without a responding server, for both durabilities, once or twice."""
    tally = Tally("client: SIGKILL at a random point")
    for k in range(tries):
        film, spool = Film(draw.randrange(2**31)), rig.new_spool()
        durable, hung = bool(k % 2), bool(k // 2 % 2)
        steps = _one_life(rig, film, spool, draw, durable, hung)
        for _ in range(k // 4 % 2 if steps.data_id and rig.syncs else 0):
            second_life = _one_life(rig, film, spool, draw, durable, hung, steps.data_id)
            steps.lines += second_life.lines
        after_death(rig, spool, steps, film, tally, durable=durable)
    return tally


def _one_life(
    rig: Rig, film: Film, spool: Path, draw: Random, durable: bool, hung: bool, data_id: str | None = None
) -> StepLog:
    settings = {"durability": "disk" if durable else "memory"}
    pusher = rig.push(
        film, spool, data_id=data_id, count=1000, pause_at=0 if hung and data_id is None else None,
        settings=settings, end="hold",
    )  # fmt: skip
    if hung and data_id is None:
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
    for _ in range(draw.randrange(0, 60)):
        pusher.read("")
    time.sleep(draw.random() * 0.01)  # a random moment for the fault
    steps = pusher.kill()
    rig.server.go_on()
    return steps


def killed_at_calls(rig: Rig, moments: Sequence[tuple[str, int]]) -> Tally:
    """SIGKILL at the n-th system call of a kind, such as the third rename, with durable pushes and a server.

    A client that makes fewer calls survives; after three such clients no later moment of that call is tried.
    """
    tally = Tally("client: SIGKILL at its n-th " + ", ".join(sorted({call for call, _ in moments})))
    lived: Counter[str] = Counter()
    for k, (call, n) in enumerate(moments):
        if lived[call] == LIVED_ENOUGH:
            continue
        film, spool = Film(1000 + k), rig.new_spool()
        before = injected(f"{call}:signal=KILL:when={n}")
        pusher = rig.push(
            film, spool, before=before, count=12, settings={"durability": "disk"}, end="finalize"
        )
        after_death(rig, spool, pusher.ended(), film, tally, durable=True)
        lived[call] += pusher.process.returncode == 0
    return tally


def killed_server(rig: Rig, tries: int, draw: Random) -> Tally:
    """SIGKILL of the server while it stores chunks, then a restart: no confirmed chunk is lost."""
    tally = Tally("server: SIGKILL while it ingests, restarted")
    for _ in range(tries):
        film = Film(draw.randrange(2**31))
        pusher = rig.push(film, rig.new_spool(), count=60, end="finalize")
        pusher.read(f"accepted {draw.randrange(1, 50)}")
        time.sleep(draw.random() * 0.02)
        rig.server.kill()
        rig.server.start()
        finished(rig, pusher, film, tally)
    return tally


def finished(rig: Rig, pusher: Pusher, film: Film, tally: Tally) -> None:
    """Check a pusher that finished: the server has all its chunks, and its report states the same."""
    steps = pusher.ended()
    if pusher.process.returncode:
        tally.count_failure("lost", f"the client failed: {pusher.errors[-500:]}")
    accepted = steps.indices("accepted")
    tally.check_stream(rig.server.stored_stream(steps.data_id), accepted, steps.indices("pushing"), film)
    report = json.loads(next(iter(steps.words("report")), "{}"))
    if report.get("chunks_uploaded") != len(accepted) or report["lost"]:
        tally.count_failure("lost", f"the report is wrong: {report} of {len(accepted)}")


def after_death(rig: Rig, spool: Path, steps: StepLog, film: Film, tally: Tally, *, durable: bool) -> None:
    """Deliver the chunks of a dead client, and check the result.

    Required are chunks acknowledged as durable; else those on disk or on the server when it died.
    """
    if not steps.data_id or not list(spool.rglob("stream.json")):
        tally.tries += 1
        if durable and steps.indices("accepted"):
            _check_complete(rig, steps, film, tally)  # finalized before it died, so its folder was removed
        return
    durable = durable and rig.syncs
    owed = (
        steps.indices("accepted")
        if durable
        else rig.on_disk(spool) | set(rig.server.stored_stream(steps.data_id).chunks)
    )
    report = rig.recover(spool, steps.data_id)
    stored_stream = rig.server.stored_stream(steps.data_id)
    tally.check_stream(stored_stream, owed, steps.indices("pushing"), film)
    if report is not None:
        check_report(report, steps, stored_stream, tally)


def _check_complete(rig: Rig, steps: StepLog, film: Film, tally: Tally) -> None:
    tally.tries -= 1
    tally.check_stream(
        rig.server.stored_stream(steps.data_id), steps.indices("accepted"), steps.indices("pushing"), film
    )


def check_report(report: StreamReport, steps: StepLog, stored_stream: StoredStream, tally: Tally) -> None:
    """The counts add up, chunks reported as stored exist, and missing chunks are reported."""
    if report["chunks_spooled"] != report["chunks_uploaded"] + report["chunks_not_uploaded"]:
        tally.count_failure("lost", f"the counts do not add up: {report}")
    if report["chunks_uploaded"] > len(stored_stream.chunks):
        tally.count_failure("lost", f"reported as stored, but it is not: {report}")
    lost = {index for index, _ in report["lost"]}
    silent = (
        {k for k in steps.indices("accepted") if k < max(stored_stream.chunks, default=-1)}
        - lost
        - set(stored_stream.chunks)
    )
    if silent:
        tally.count_failure("lost", f"missing, but not reported: {sorted(silent)}")
