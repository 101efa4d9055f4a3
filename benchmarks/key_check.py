"""What the check of an API key costs: ``python -m benchmarks.key_check``.

Prints the time of one check in µs, for the server's own key and for one of many keys, and that of an argon2 check.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from atomstream.server.http.api_keys import KeyRing, ensure_key
from atomstream.server.http.gate import Gate
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.key_use import KeyUse
from atomstream.server.people.passwords import hash_password, is_password
from atomstream.server.people.records import Actor
from atomstream.server.people.store import People

KEYS = 1000
CHECKS = 20_000
ROUNDS = 5


async def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = ensure_key(folder)
        assert own is not None
        people = People(folder)
        actor = Actor("benchmark", "command line")
        secrets = [people.create_key(actor, "read", instrument=f"No. {k}").secret for k in range(KEYS)]
        gate = Gate(KeyRing.load(folder, None), people, GuessLimiter(), KeyUse(folder))
        rows = [
            ("the server's own key", await time_of(gate, own)),
            (f"one of {KEYS} keys", await time_of(gate, secrets[KEYS // 2])),
        ]
        begun = time.perf_counter()
        People(folder)
        rows.append((f"reading {KEYS} keys at the start", 1e6 * (time.perf_counter() - begun)))
    stored = hash_password("correct horse battery")
    rows.append(("a password (argon2id)", best(lambda: is_password(stored, "correct horse battery"), 3)))
    for what, us in rows:
        print(f"{what:32} {us:12.1f} µs")


async def time_of(gate: Gate, key: str) -> float:
    """The median of some rounds, in µs a check."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(CHECKS):
            await gate.of_key(key, "127.0.0.1", "benchmark")
        times.append(1e6 * (time.perf_counter() - begun) / CHECKS)
    return statistics.median(times)


def best(call: Callable[[], object], rounds: int) -> float:
    """The shortest time of a call in µs."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - begun))
    return min(times)


if __name__ == "__main__":
    asyncio.run(main())
