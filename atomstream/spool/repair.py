"""Opening a stream's folder after whatever happened: the files are brought where the journal says.

Every step may be cut short and is repeated at the next opening. Nothing that is not settled is removed, and a
damaged record is put aside under its name, with the reason in the journal.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import cast

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.spool.disk import Disk
from atomstream.spool.entries import Entry, EntryKind
from atomstream.spool.history import StreamHistory
from atomstream.spool.journal import Journal
from atomstream.spool.names import QUARANTINE, mark_name, marks_in, record_name, records_in, temporaries_in
from atomstream.spool.record import checked_head

_log = logging.getLogger(__name__)


class Repair:
    """One pass over a stream's folder; its lock must be held."""

    def __init__(
        self, disk: Disk, folder: Path, data_id: str, journal: Journal, history: StreamHistory
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._data_id = data_id
        self._journal = journal
        self._history = history
        self._may_remove = False

    def run(self) -> None:
        """Do all of it. What the disk refuses is left for the next time."""
        with suppress(SpoolError):
            # "stored" may so far stand in the page cache only: it must be safe before its record goes.
            self._journal.sync()
            self._may_remove = True
        for path in [*temporaries_in(self._folder), *temporaries_in(self._folder / QUARANTINE)]:
            self._unlink(path)  # never acknowledged
        for index, kind in marks_in(self._folder):
            self._take_mark(index, cast("EntryKind", kind))
        for index in records_in(self._folder):
            self._settle_record(index)
        for index in records_in(self._folder / QUARANTINE):
            self._settle_quarantined(index)

    def _take_mark(self, index: int, kind: EntryKind) -> None:
        entry = Entry(kind, index, reason="" if kind == "stored" else "noted while the disk was full")
        self._history.add(entry)
        with suppress(SpoolError):  # still full: the mark stays, and says the same again next time
            self._journal.append_durable(entry)
            self._unlink(self._folder / mark_name(index, kind))

    def _settle_record(self, index: int) -> None:
        path = self._folder / record_name(index)
        state = self._history.states.get(index, "pending")
        if state == "quarantined":
            self._move(path, self._folder / QUARANTINE)
        elif state != "pending":
            self._remove(path)
        else:
            self._check(path, index)

    def _check(self, path: Path, index: int) -> None:
        try:
            head = checked_head(self._disk, path, self._data_id, index)
        except RecordCorruptError as error:
            _log.warning("%s It is kept in %s.", error, self._folder / QUARANTINE)
            self._note(Entry("quarantined", index, reason=str(error)))
            self._move(path, self._folder / QUARANTINE)
        except SpoolError as error:  # perhaps it can be read later: it stays pending
            _log.warning("%s", error)
            self._note(Entry("accepted", index))
        else:
            if index not in self._history.digests:
                self._note(Entry("accepted", index, head.digest))

    def _settle_quarantined(self, index: int) -> None:
        path = self._folder / QUARANTINE / record_name(index)
        state = self._history.states.get(index)
        if state is None:
            self._note(Entry("quarantined", index, reason="found in quarantine; the reason is not known"))
        elif state == "pending":
            self._move(path, self._folder)
        elif state != "quarantined":
            self._remove(path)

    def _note(self, entry: Entry) -> None:
        self._history.add(entry)
        with suppress(SpoolError):  # the files tell the same again at the next opening
            self._journal.append(entry)

    def _move(self, path: Path, folder: Path) -> None:
        with suppress(OSError):
            self._disk.make_folder(folder)
            self._disk.rename(path, folder / path.name)

    def _remove(self, path: Path) -> None:
        if self._may_remove:
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(OSError):
            self._disk.unlink(path)
