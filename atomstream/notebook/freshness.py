"""How fresh the newest result of a stream is, for :class:`atomstream.notebook.widget.LiveWidget`.

The rule is that of the server's page: numbers are stale if they are older than the next result should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STALE: Final = "stale"
FRESH: Final = "fresh"
UNDETERMINED: Final = "undetermined"
WAITING: Final = "waiting"
ENDED: Final = "ended"
FAILED: Final = "failed"
CLOSED: Final = "closed"

SHORTEST_LIMIT_S: Final = 2.5
"""Results are never called stale before they have this age."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a running stream. Times are in seconds.

    ``chunk_s`` is the length of a chunk, ``age_s`` the age of the newest frame with results (None: no results yet),
    ``silent_s`` the time since the last batch of results arrived. ``problem`` is why the server can't be read ("": it
    can). ``why`` is the reason why the newest growth rate is undetermined ("": it is determined).
    """

    chunk_s: float
    age_s: float | None
    silent_s: float
    problem: str = ""
    why: str = ""


def state_of(facts: Facts) -> tuple[str, str]:
    """The state of the newest growth rate, and the sentence for it."""
    age = "" if facts.age_s is None else f" This number is {words(facts.age_s)} old."
    if facts.problem:
        return STALE, f"No connection to the server: {facts.problem}{age}"
    if facts.age_s is None:
        return WAITING, "No results yet."
    limit = max(SHORTEST_LIMIT_S, facts.chunk_s + 1.0)
    if facts.silent_s > limit:
        return STALE, f"No new results for {words(facts.silent_s)}.{age}"
    if facts.age_s > limit:
        return STALE, f"The results are late.{age}"
    return (UNDETERMINED, facts.why) if facts.why else (FRESH, "")


def words(seconds: float) -> str:
    """A duration for people: ``7 s``, ``3 min``, ``2 h``."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
