"""Detects that PostgreSQL can't be reached, and defines the error for requests in that time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

PAUSE_S: Final = 1.0
"""After a failure no other connection is tried for this time, in s: each may take seconds to fail."""

_AWAY_CODES: Final = ("08", "57P", "53300", "25006", "28", "3D000")
"""Beginnings of SQLSTATE codes: connection lost, server stopping or starting, too many connections, a standby that
only reads, a user or password that is refused, a database that does not exist."""


def is_unreachable(error: BaseException) -> bool:
    """Whether ``error`` means that the database can't be reached, as opposed to an error of a statement."""
    if isinstance(error, (OSError, TimeoutError, PoolTimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = sql_state(error)
    if code:
        return code.startswith(_AWAY_CODES)
    # Without a code of the server: a lost connection. That of pg8000 is an InterfaceError with a text.
    causes = (error.orig, getattr(error.orig, "__cause__", None))
    return isinstance(error, OperationalError) or any(
        isinstance(one, OSError) or "network error" in str(one) or "connection" in str(one).lower()
        for one in causes
    )


def sql_state(error: DBAPIError) -> str:
    """The SQLSTATE of an error of asyncpg (an attribute) or of pg8000 (a dictionary as the first argument)."""
    cause = error.orig
    code = getattr(cause, "sqlstate", None)
    if code is None and cause is not None and cause.args and isinstance(cause.args[0], dict):
        code = cause.args[0].get("C")
    return str(code or "")


def _described(error: BaseException) -> str:
    """The error in the words of the server, or of the operating system, where it has such."""
    following: BaseException | None = error
    last = error
    while following is not None:
        if isinstance(following, (TimeoutError, asyncio.CancelledError)):
            return "it does not answer in time"
        last = following
        if following.args and isinstance(following.args[0], dict) and "M" in following.args[0]:
            return str(following.args[0]["M"])
        following = getattr(following, "orig", None) or following.__cause__
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    return str(last).strip() or type(last).__name__


class Reachability:
    """Whether the database answers. Used by all threads. ``clock`` is monotonic, in s."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._since: float | None = None
        self._tried = 0.0
        self._last = ""

    @property
    def cause(self) -> str:
        """The text of the last failure."""
        return self._last

    @property
    def problem(self) -> str:
        """A sentence while the database is unreachable; empty otherwise."""
        if self._since is None:
            return ""
        return (
            f"The catalogue (PostgreSQL) can't be reached for {self._clock() - self._since:.0f} s. Streams that run "
            "are stored; new streams, names and sign-ins wait until it is back."
        )

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Context manager round the use of a connection.

        Raises:
            CatalogueUnavailableError: the database can't be reached, or could not be a moment ago.
        """
        if self._since is not None and self._clock() - self._tried < PAUSE_S:
            raise self._error()
        try:
            yield
        except Exception as error:
            if not is_unreachable(error):
                raise
            self._note(error)
            raise self._error() from error
        if self._since is not None:
            log.warning(
                "the catalogue %s can be reached again, after %.0f s", self._name, self._clock() - self._since
            )
            self._since = None

    def _note(self, error: Exception) -> None:
        self._tried = self._clock()
        if self._since is None:
            self._since = self._tried
            self._last = _described(error)
            log.error("the catalogue %s can't be reached: %s", self._name, self._last)

    def _error(self) -> CatalogueUnavailableError:
        return CatalogueUnavailableError(
            "The catalogue (PostgreSQL) can't be reached now, and nothing was changed. Try again in some seconds; "
            "streams that run are not affected."
        )
