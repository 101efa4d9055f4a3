"""Cost of the spool: pushes with and without it, durable pushes and the bare steps. Prints one JSON line."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.records import Chunk, FrameMeta, Timestamp
from atomstream.shard import ShardEncoder

WARM_UP = 2


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    print(json.dumps({"paired": paired, "durable": durable}[job["mode"]](job, source)))


class Client:
    """A streamer with one stream, warmed up; without a ``spool`` folder frames stay in memory only."""

    def __init__(self, job: dict[str, Any], spool: str, source: np.ndarray, **settings: Any) -> None:
        self._streamer = RHEEDStreamer("key", job["url"], 0, spool, spool_min_free_bytes=0, **settings)
        self._data_id = self._streamer.initialize(job["fps"], 0.0, len(source))
        self._source = source
        self._next = 0
        for _ in range(WARM_UP):
            self.push()
            self.wait_until_stored()

    def push(self) -> None:
        self._streamer.push(self._data_id, self._next, self._source)
        self._next += 1

    def wait_until_stored(self) -> None:
        """Wait until the server has all chunks and the spool has deleted them."""
        self._streamer.flush(self._data_id)
        self._streamer.spool_status()  # this disk job runs after all others

    def close(self) -> None:
        self._streamer.close()


def paired(job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """A chunk with the spool and one without, in turn: each one's push, and its processor time until all is done.

    In one process, so that other load on the machine affects both alike.
    """
    clients = {name: Client(job, job[name], source) for name in ("spool", "none")}
    figures: dict[str, list[float]] = {f"{what}_{name}": [] for name in clients for what in ("push", "cpu")}
    for k in range(job["chunks"]):
        for name, client in list(clients.items())[
            :: (-1) ** k
        ]:  # the first one may be disturbed by the end of the other
            cpu = time.process_time()
            figures[f"push_{name}"].append(timed(client.push))
            client.wait_until_stored()
            figures[f"cpu_{name}"].append(time.process_time() - cpu)
    asking = [
        cpu_of(clients["spool"].wait_until_stored) for _ in range(job["chunks"])
    ]  # not a cost of the spool
    figures["cpu_spool"] = [cpu - statistics.median(asking) for cpu in figures["cpu_spool"]]
    for client in clients.values():
        client.close()
    return figures


def durable(job: dict[str, Any], source: np.ndarray) -> dict[str, Any]:
    """Measure durable pushes and, in turn, encode + write + sync of the same bytes alone."""
    client = Client(job, job["spool"], source, durability="disk")
    encoder, pushes, bares = ShardEncoder(), [], []
    for k in range(job["chunks"]):
        pushes.append(timed(client.push))
        client.wait_until_stored()  # or its upload would run during the bare steps
        bares.append(timed(partial(bare, encoder, Path(job["bare"]), k, source)))
    client.close()
    return {"push_s": pushes, "bare_s": bares}


def bare(encoder: ShardEncoder, folder: Path, k: int, source: np.ndarray) -> None:
    """Encode, write and fdatasync, without rename, folder sync or checksum."""
    shard = encoder.encode(Chunk("bare", k, source, Timestamp(0.0), FrameMeta()))
    path = folder / f"bare-{k}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for piece in shard.pieces:
        os.write(fd, piece)
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)
    os.close(fd)
    path.unlink()


def timed(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def cpu_of(call: Callable[[], None]) -> float:
    """Return the CPU time of the whole process in s during the call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
