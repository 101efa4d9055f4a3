"""The record of runs of the rules of retention in a store that several servers share: one of them runs at a time.

The record is one object. A server begins a run by replacing the object that it has read, and replaces it again and
again while it runs. A run whose object stays unchanged for ``STALE_S`` has ended without a final report, because its
server was killed; then another server may begin. No clocks are compared.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from atomstream.errors import ConfigError
from atomstream.server.ports.store import (
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    Store,
    StoreUnavailableError,
    attempts,
)
from atomstream.server.retention.report import REPORT_FILE, RetentionReport, packed
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

BEAT_S: Final = 20.0
"""Time between two writes of the object while a run goes on."""
STALE_S: Final = 180.0
"""After this time without a change, in s, the server of a run counts as ended. A write may take 40 s in a bad
network."""


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """The object: ``beat`` changes at each write, so that each version has its own etag."""

    beat: str
    report: RetentionReport


class StoreRecord:
    """See :class:`~.report.RunRecord`. Used in the loop of one server; ``clock`` is monotonic."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.report: RetentionReport | None = None
        self.lost = False
        self._store = store
        self._clock = clock
        self._etag: str | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._beating: asyncio.Task[None] | None = None

    async def refresh(self) -> RetentionReport | None:
        """Read the report that any server has written; the last known one while the store can't be reached."""
        if self._beating is None:
            with suppress(StoreUnavailableError):
                await asyncio.to_thread(self._read)
        return self.report

    def _read(self) -> str | None:
        """Note the present report, and since when it is there; returns its etag."""
        try:
            found = self._store.get(REPORT_FILE)
        except ObjectMissingError:
            return None
        try:
            self.report = msgspec.json.decode(found.data, type=_Noted).report
        except msgspec.MsgspecError as error:
            log.error(
                "%s in %s can't be read; a new one is written: %s", REPORT_FILE, self._store.name, error
            )
            self.report = None
        if self._seen[0] != found.etag:
            self._seen = (found.etag, self._clock())
        return found.etag

    async def begin(self, began: float) -> None:
        """Begin a run; see :meth:`.RunRecord.begin`."""
        await asyncio.to_thread(self._take, began)
        self.lost = False
        self._beating = asyncio.create_task(self._beat(), name="atomstream retention beats")

    def _take(self, began: float) -> None:
        for _ in attempts(self._store, REPORT_FILE):
            etag = self._read()
            if self.report is not None and self.report.running and self._clock() - self._seen[1] < STALE_S:
                raise ConfigError(
                    "Another server of the cluster applies the rules at present. Nothing was changed; GET /retention "
                    f"has its report. If that server has ended, others can begin after {STALE_S:g} s."
                )
            report = RetentionReport(began=began, running=True)
            with suppress(ObjectExistsError, StaleObjectError):  # another server was faster: read again
                self._etag = self._store.put(
                    REPORT_FILE, _object(report), create_only=etag is None, if_match=etag
                )
                self.report = report
                return

    def note(self, report: RetentionReport) -> None:
        """The report of the run that goes on; others see it at the next beat."""
        self.report = report

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            assert self.report is not None
            try:
                await self._write(self.report)
            except StaleObjectError:
                log.error("retention: another server has taken over; the run ends here")
                self.lost = True
                return
            except StoreUnavailableError as error:
                log.debug("retention: the report of the run is written later: %s", error)

    async def _write(self, report: RetentionReport) -> None:
        self._etag = await asyncio.to_thread(
            self._store.put, REPORT_FILE, _object(report), if_match=self._etag
        )

    async def end(self, report: RetentionReport | None) -> None:
        """Write the report, unless another server has taken over; see :meth:`.RunRecord.end`."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            self._beating = None
        if self.lost or report is None:
            return
        self.report = report
        try:
            await self._write(report)
        except (StaleObjectError, StoreUnavailableError) as error:
            log.warning("the report of the retention can't be written: %s", error)


def _object(report: RetentionReport) -> bytes:
    beat = msgspec.json.encode(uuid.uuid4().hex)
    return b'{"beat":' + beat + b',"report":' + packed(report) + b"}"
