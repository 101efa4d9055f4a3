"""The clocks of this computer and of the database, which must agree: times of several servers are compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, text

from atomstream.errors import ConfigError

MOST_APART_S: Final = 5.0
"""Largest difference in s. Rows, upload URLs, sessions and expiries of keys are compared between servers."""


def clock_difference(connection: Connection, clock: Callable[[], float] = time.time) -> tuple[float, float]:
    """How much the database's clock is ahead of ``clock`` (Unix time), and the uncertainty, both in s."""
    connection.execute(text("SELECT 1"))  # the first statement of a connection takes longer
    before = clock()
    there = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    after = clock()
    return there - (before + after) / 2, (after - before) / 2


def check_clock(connection: Connection, name: str, clock: Callable[[], float] = time.time) -> float:
    """The difference in s; raises ConfigError if it is more than :data:`MOST_APART_S` for certain."""
    ahead, uncertain = clock_difference(connection, clock)
    if abs(ahead) - uncertain > MOST_APART_S:
        raise ConfigError(
            f"The clock of this computer is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} that of the "
            f"database {name}; {MOST_APART_S:.0f} s are allowed. Set both by NTP. Nothing was changed."
        )
    return ahead
