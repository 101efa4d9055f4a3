"""What a user says of a stream: events, regions, calibration, labels of azimuths; the truth is a log beside it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from atomstream.results import Plain
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.record_log import RecordLog, is_lost


class Annotations:
    """The words of one stream, in the order in which they were said. Blocks; one writer at a time."""

    def __init__(self, path: Path, file_system: FileSystem = LOCAL) -> None:
        self._log = RecordLog(path, file_system=file_system)
        self.words = [self._log.read(number + 1) for number in range(len(self._log))]

    def say(self, word: Plain) -> None:
        """Keep a word, durably.

        Raises:
            OSError: the disk's; nothing was kept.
        """
        self._log.append(word, durable=True)
        self.words.append(word)

    def event(
        self, kind: str, label: str, time_ms_utc: float, value: float | None, event_id: str | None
    ) -> Plain:
        """Keep an event and return it; one whose id is known already is returned as it was kept."""
        known = [word for word in self.words if word["what"] == "event" and word["id"] == event_id]
        if known:
            return known[0]
        word = {
            "what": "event",
            "id": event_id or str(uuid.uuid4()),
            "kind": kind,
            "label": label,
            "time_ms_utc": time_ms_utc,
            "value": value,
        }
        self.say(word)
        return word

    def events(self, origin_ms: float | None) -> list[Plain]:
        """The user's events as the API has them; without an origin their place in the stream is not known yet."""
        return [as_event(word, origin_ms) for word in self.words if word["what"] == "event"]

    def last(self, what: str, default: Any) -> Any:
        """What was said last of ``regions`` or the ``calibration``."""
        said = [word[what] for word in self.words if word["what"] == what]
        return said[-1] if said else default

    def labels(self) -> dict[str, Plain]:
        """What was said last of each azimuth's view: ``label`` and ``enabled``, by the view's id."""
        found: dict[str, Plain] = {}
        for word in self.words:
            if word["what"] == "azimuth":
                found.setdefault(word["view_id"], {}).update(word["said"])
        return found

    def for_analysis(self, since: int, origin_ms: float) -> list[Plain]:
        """The words from number ``since`` on (from 0), events on the stream's own clock."""
        return [
            {**word, "time_s": (word["time_ms_utc"] - origin_ms) / 1000.0}
            if word["what"] == "event"
            else word
            for word in self.words[since:]
            if not is_lost(word)
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._log.close()


def as_event(word: Plain, origin_ms: float | None) -> Plain:
    """A kept event as the API has it."""
    at = None if origin_ms is None else (word["time_ms_utc"] - origin_ms) / 1000.0
    return {
        "id": word["id"],
        "time_s": at,
        "time_ms_utc": word["time_ms_utc"],
        "kind": word["kind"],
        "label": word["label"],
        "value": word["value"],
        "by": "user",
    }
