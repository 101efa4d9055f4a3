"""The report of a run of the retention rules, and the record of runs by which only one runs at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
from filelock import Timeout

from atomstream.errors import ConfigError
from atomstream.server.data_dir import upkeep_lock
from atomstream.server.retention.plan import Action, Plan
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")

REPORT_FILE: Final = "retention.json"
MAX_LISTED: Final = 1000


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, or a preview would do. Times are UTC seconds since 1970.

    ``actions`` are in their order; ``skipped`` are pairs of a stream's id and the reason; ``failed`` as well.
    """

    began: float
    ended: float | None = None
    running: bool = False
    actions: list[Action] = []
    skipped: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    over: list[str] = []

    @classmethod
    def of(cls, plan: Plan, began: float, ended: float | None) -> RetentionReport:
        """The report of a plan of which nothing is done yet."""
        return cls(
            began=began,
            ended=ended,
            actions=list(plan.actions),
            skipped=list(plan.skipped),
            over=list(plan.over),
        )

    @property
    def freed_bytes(self) -> int:
        """Bytes of all actions together."""
        return sum(action.freed_bytes for action in self.actions)


class RunRecord(Protocol):
    """Where runs are noted: one at a time, whichever process does it."""

    @property
    def report(self) -> RetentionReport | None:
        """The report of the run that goes on, or of the last one, as far as is known; None before the first."""
        ...

    @property
    def lost(self) -> bool:
        """True once another process has taken over the run of this one, which must end then."""
        ...

    async def refresh(self) -> RetentionReport | None:
        """Read the report again, in case another process has written it."""
        ...

    async def begin(self, began: float) -> None:
        """Begin a run.

        Raises:
            ConfigError: another one goes on. StoreUnavailableError: the store can't be reached.
        """
        ...

    def note(self, report: RetentionReport) -> None:
        """The report of the run that goes on."""
        ...

    async def end(self, report: RetentionReport | None) -> None:
        """End the run. ``report`` is what it did; None if it failed before there was any."""
        ...


class FolderRecord:
    """The record of a server with its own data folder: a file, and a lock that backups use too."""

    lost = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = upkeep_lock(data_dir)
        self.report = self._read()

    async def refresh(self) -> RetentionReport | None:
        """The present report: no other process writes it while this one runs."""
        return self.report

    async def begin(self, began: float) -> None:
        """Begin a run; raises ConfigError while a backup of the folder runs."""
        try:
            await asyncio.to_thread(self._lock.acquire, timeout=0)
        except Timeout:
            raise ConfigError(
                f"A backup of {self._data_dir} runs, or another run of the rules. Nothing was changed; try again "
                "after it."
            ) from None

    def note(self, report: RetentionReport) -> None:
        """The report of the run that goes on."""
        self.report = report

    async def end(self, report: RetentionReport | None) -> None:
        """Write the report, and release the lock."""
        try:
            if report is not None:
                self.report = report
                await asyncio.to_thread(self._write, report)
        finally:
            await asyncio.to_thread(self._lock.release)

    def _read(self) -> RetentionReport | None:
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(read_plain(self._data_dir / REPORT_FILE), type=RetentionReport)
        return None

    def _write(self, report: RetentionReport) -> None:
        try:
            LOCAL.write_atomic(self._data_dir / REPORT_FILE, [packed(report)])
        except OSError as error:
            log.warning("the report of the retention can't be written: %s", error)


def packed(report: RetentionReport) -> bytes:
    """A report as JSON, with the first entries of long lists."""
    return msgspec.json.encode(
        msgspec.structs.replace(
            report, actions=report.actions[:MAX_LISTED], skipped=report.skipped[:MAX_LISTED]
        )
    )
