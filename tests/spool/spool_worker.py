"""A separate process that uses a spool and prints each acknowledged step to stdout, unbuffered."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.spool import Spool, StreamSpool
from tests.spool.spool_helpers import DATA_ID, ENDPOINT, new_spool, shard, spec


def print_step(*words: object) -> None:
    """Print one line with one system call, before anything else happens."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def stream_of(spool: Spool, data_id: str = DATA_ID) -> StreamSpool:
    """The stream, opened if it exists, else created."""
    if spool.folder_of(ENDPOINT, data_id).exists():
        return spool.open_stream(ENDPOINT, data_id)
    return spool.create_stream(ENDPOINT, spec(data_id))


def churn(root: Path) -> None:
    """Write, resolve and quarantine chunks until killed."""
    stream = stream_of(new_spool(root))
    start = max(stream.journal_state.next_index(), max(stream.pending(), default=-1) + 1)
    print_step("open")
    for index in range(start, start + 100_000):
        if stream.put(shard(index)):
            print_step("put", index)
        if index % 3 == 0:
            stream.mark_stored(index)
            print_step("stored", index)
        elif index % 7 == 0:
            stream.quarantine(index, "422")
            print_step("quarantined", index)


def hold(root: Path) -> None:
    """Hold the stream until killed."""
    stream = stream_of(new_spool(root))
    print_step("held", stream.put(shard(0)) is not None)
    sys.stdin.read()


def fork_and_hold(root: Path) -> None:
    """Hold the stream and fork a child, which tries to use it and continues to run."""
    stream = stream_of(new_spool(root))
    stream.put(shard(0))
    if os.fork():
        sys.stdin.read()
        return
    try:
        stream.put(shard(1))
    except Exception as error:
        print_step(type(error).__name__)
    stream.close()
    print_step("child", os.getpid())
    os.close(1)
    sys.stdin.read()


def fill(root: Path, data_id: str, max_bytes: str) -> None:
    """Fill the spool up to its limit."""
    stream = stream_of(new_spool(root, max_bytes=int(max_bytes)), data_id)
    print_step("open")
    sys.stdin.readline()
    for index in range(10_000):
        try:
            stream.put(shard(index, data_id=data_id))
        except SpoolFullError:
            print_step("full", index)
            break
    sys.stdin.readline()


def few(root: Path) -> None:
    """Write ten chunks and mark three as stored; print each step, whether it worked or not."""
    stream = stream_of(new_spool(root))
    for index in range(10):
        _attempt("put", index, lambda i=index: stream.put(shard(i)))
    for index in range(3):
        _attempt("stored", index, lambda i=index: stream.mark_stored(i))
    stream.close()


def tiny_disk(root: Path) -> None:
    """Fill a separate disk completely, then mark all chunks as stored."""
    stream = stream_of(new_spool(root))
    index = 0
    try:
        for index in range(100_000):
            stream.put(shard(index, side=60))
    except SpoolFullError:
        print_step("full", index)
    with (root / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(512)):
                pass
        except OSError:
            print_step("brim")
        held = stream.pending()
        for index in held:
            stream.mark_stored(index)
    stream.close()
    reopened_stream = new_spool(root).open_stream(ENDPOINT, DATA_ID)
    print_step(
        "stored",
        sum(state == "stored" for state in reopened_stream.journal_state.states.values()),
        len(held),
        reopened_stream.pending(),
    )


def _attempt(what: str, index: int, act: object) -> None:
    try:
        act()  # type: ignore[operator]
    except SpoolError:
        print_step("refused", index)
    else:
        print_step(what, index)


if __name__ == "__main__":
    work = {f.__name__: f for f in (churn, hold, fork_and_hold, fill, few, tiny_disk)}
    work[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
