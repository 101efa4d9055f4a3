"""The recordings of this computer: one small file each, from which the next start finds those that were interrupted."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from atomstream.spool.paths import stream_folder
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger(__name__)

RecordingState: TypeAlias = Literal["recording", "saved", "interrupted", "sent", "gone"]

MAX_BYTES: Final = 1 << 20
SHOWN: Final = 50


@dataclass(slots=True)
class RecordingEntry:
    """One recording: its stream, names, times in UTC ms, counts, and the marks that the server does not have.

    The times of these marks are those of the server's clock, like those of the frames.

    ``server_id`` is the id of the stream on the server; empty if it is not registered there yet.

    ``state``: ``recording`` (also after a crash), ``saved`` (complete on the disk), ``interrupted`` (saved up to a
    crash), ``sent`` (the server has all of it) and ``gone`` (not on this computer any more: sent, or deleted).
    """

    data_id: str
    endpoint: str
    name: str
    source: str
    began_ms: float
    sample: str = ""
    ended_ms: float | None = None
    seconds: float = 0.0
    frames: int = 0
    lost: int = 0
    state: RecordingState = "recording"
    server_id: str = ""
    unsent_marks: list[dict[str, Any]] = field(default_factory=list)


class RecordingsLog:
    """The files of a folder, one for each recording. Errors of the disk are logged: a recording does not need it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: RecordingEntry) -> None:
        """Write the entry of one recording; the old file stays until the new one is complete."""
        path = self._path(entry.data_id)
        try:
            LOCAL.make_folder(self._folder)
            LOCAL.write_atomic(path, [json.dumps(asdict(entry), indent=1).encode()], durable=False)
        except OSError as error:
            log.warning("The list of recordings can't be written (%s): %s", path, error.strerror or error)

    def entries(self) -> list[RecordingEntry]:
        """All recordings, the newest first; files that can't be read are left out, with a warning."""
        paths: list[Path] = []
        with suppress(OSError):
            paths = [path for path in self._folder.iterdir() if path.suffix == ".json"]
        found = filter(None, map(_read, paths))
        return sorted(found, key=lambda entry: entry.began_ms, reverse=True)

    def delete_old(self) -> None:
        """Delete the entries of recordings that are sent or gone, except the newest ones. Streams are not touched."""
        for entry in [one for one in self.entries() if one.state in {"sent", "gone"}][SHOWN:]:
            with suppress(OSError):
                self._path(entry.data_id).unlink()

    def _path(self, data_id: str) -> Path:
        return self._folder / f"{stream_folder(data_id)}.json"


def _read(path: Path) -> RecordingEntry | None:
    try:
        values = json.loads(read_plain(path)[:MAX_BYTES])
        known = {one.name for one in fields(RecordingEntry)}
        return RecordingEntry(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("An entry of the list of recordings can't be read (%s): %s", path, error)
        return None
