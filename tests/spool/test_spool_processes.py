"""Real processes on one spool: killed, forked and competing; and faults injected into system calls."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from atomstream.errors import SpoolLockedError
from tests.paths import REPO
from tests.spool.spool_helpers import DATA_ID, ENDPOINT, delivered, new_spool, payload, reopened, shard

HERE = Path(__file__).parent
Start = Callable[..., "subprocess.Popen[str]"]
STATES = {"put": "pending", "stored": "stored", "quarantined": "quarantined"}


def command(work: str, root: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(HERE / "spool_worker.py"), work, str(root), *map(str, arguments)]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a worker; running ones are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        process = subprocess.Popen(
            [*before, *command(*words)],  # type: ignore[arg-type]
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def update_states(lines: Sequence[str], states: dict[int, str]) -> None:
    """Update the last known state of each chunk with the steps that a worker acknowledged."""
    for line in lines:
        word, *rest = line.split()
        if word in STATES:
            states[int(rest[0])] = STATES[word]


def check(root: Path, states: dict[int, str]) -> None:
    """Every chunk is in its acknowledged state or one step further; pending chunks have the right content."""
    stream = reopened(root)
    further = {"pending": {"pending", "stored", "quarantined"}}
    for index, state in states.items():
        found = stream.journal_state.states.get(index, "none")
        assert found in further.get(state, {state}), (index, state, found)
        states[index] = found
    assert all(shard_is_equal(stream, index) for index in stream.pending())
    assert set(stream.pending()) >= {index for index, state in states.items() if state == "pending"}
    assert set(stream.quarantined()) >= {index for index, state in states.items() if state == "quarantined"}
    stream.close()


def shard_is_equal(stream: object, index: int) -> bool:
    return delivered(stream, index) == payload(shard(index))  # type: ignore[arg-type]


def kill_again_and_again(root: Path, start: Start, times: int) -> None:
    draw = random.Random(times)
    states: dict[int, str] = {}
    for _ in range(times):
        process = start("churn", root)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(draw.randrange(0, 40))]
        process.kill()
        rest, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        update_states(
            [*lines, *(line for line in rest.splitlines(keepends=True) if line.endswith("\n"))], states
        )
        if new_spool(root).streams(ENDPOINT):
            check(root, states)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killed_at_random_points(tmp_path: Path, start: Start) -> None:
    """SIGKILL, 20 times: no acknowledged data is lost, and the next process continues."""
    kill_again_and_again(tmp_path, start, 20)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_killed_at_many_random_points(tmp_path: Path, start: Start) -> None:
    """200 processes are killed at random points; the spool is consistent after each."""
    kill_again_and_again(tmp_path, start, 200)


def test_the_lock_is_released_when_its_owner_dies(tmp_path: Path, start: Start) -> None:
    """A second process gets SpoolLockedError until the first one is dead."""
    process = start("hold", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held True\n"
    with pytest.raises(SpoolLockedError, match="Another process"):
        reopened(tmp_path)
    assert new_spool(tmp_path).recoverable(ENDPOINT) == []
    process.kill()
    process.wait()
    stream = reopened(tmp_path)
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_holds_nothing(tmp_path: Path, start: Start) -> None:
    """A forked child gets ClosedError, can't release its parent's lock, and does not keep it when the parent dies."""
    process = start("fork_and_hold", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ClosedError\n"
    child = psutil.Process(int(process.stdout.readline().split()[1]))
    try:
        with pytest.raises(SpoolLockedError):
            reopened(tmp_path)
        process.kill()
        process.wait()
        assert child.is_running()
        stream = reopened(tmp_path)
        assert stream.pending() == [0]
        stream.close()
    finally:
        child.kill()


@pytest.mark.slow
def test_all_processes_share_the_limit(tmp_path: Path, start: Start) -> None:
    """Processes that fill one spool at the same time stay below its limit together."""
    limit = 60 * 1024
    workers = [start("fill", tmp_path, f"stream-{k}", limit) for k in range(4)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    counts = [int(worker.stdout.readline().split()[1]) for worker in workers if worker.stdout]
    size = sum(path.stat().st_size for path in tmp_path.rglob("chunk-*"))
    assert size == new_spool(tmp_path, max_bytes=limit).status()["bytes"]
    assert limit - 1024 < size <= limit
    assert sum(counts) == len(list(tmp_path.rglob("chunk-*.rec")))


def _strace_works() -> bool:
    if not shutil.which("strace"):
        return False
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip the test if system calls can't be traced."""
    if sys.platform != "linux" or not _strace_works():
        pytest.skip("strace is not here, or ptrace is not allowed")


def under_strace(start: Start, root: Path, fault: str) -> list[str]:
    before = ["strace", "-f", "-o", os.devnull, "-e", "trace=" + fault.split(":")[0], "-e", f"inject={fault}"]
    process = start("few", root, before=before)
    lines, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return lines.splitlines()


KERNEL_FAULTS = [
    f"{call}:error={code}:when={when}"
    for call, code in [("fdatasync", "EIO"), ("fsync", "EIO"), ("rename", "EIO"), ("writev", "ENOSPC")]
    for when in ("6", "7+2")
]
KERNEL_KILLS = [
    f"{call}:signal=KILL:when={n}" for call in ("rename", "fdatasync", "unlink") for n in (4, 9, 12)
]


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", KERNEL_FAULTS)
def test_faults_from_the_kernel(tmp_path: Path, start: Start, fault: str) -> None:
    """A failing fsync, rename or write system call is reported, and no acknowledged data is lost."""
    lines = under_strace(start, tmp_path, fault)
    assert any(line.startswith("refused") for line in lines)
    states: dict[int, str] = {}
    update_states(lines, states)
    check(tmp_path, states)


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", KERNEL_KILLS)
def test_killed_at_a_system_call(tmp_path: Path, start: Start, fault: str) -> None:
    """SIGKILL at the n-th rename, fdatasync or unlink: no acknowledged data is lost."""
    lines = under_strace(start, tmp_path, fault)
    assert len(lines) < 13, "the process was not killed"
    states: dict[int, str] = {}
    update_states(lines, states)
    check(tmp_path, states)


def test_a_completely_full_disk(tmp_path: Path, start: Start) -> None:
    """On a completely full disk records are still removed, and the stored chunks are known afterwards."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not here")
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    before = ["unshare", "-Urm", "sh", "-c", script, str(tmp_path)]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    process = start("tiny_disk", tmp_path, before=before)
    lines, errors = process.communicate(timeout=60)
    assert not errors
    full, brim, stored = lines.splitlines()
    count = full.split()[1]
    assert int(count) > 20
    assert (brim, stored) == ("brim", f"stored {count} {count} []")


def test_workers_use_the_same_data_id() -> None:
    """The workers and the tests use the same data_id."""
    assert shard(0).info.data_id == DATA_ID
