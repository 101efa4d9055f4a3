"""Events of a stream, from the caller's words to the server's record: checked, stamped, repeated where that is safe."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from atomstream.config import MAX_RPM, number_in_range
from atomstream.errors import ConfigError, StreamError
from atomstream.records import Json
from atomstream.results import Event, event_from
from atomstream.retry import retrying
from atomstream.streaming.validation import check_capture_ms

if TYPE_CHECKING:
    from atomstream.streaming.session import StreamingSession

ATTEMPTS: Final = 4

MAX_LABEL: Final = 200

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


async def mark(
    engine: StreamingSession,
    data_id: str,
    label: str,
    kind: str,
    time_ms_utc: float | None,
    value: float | None = None,
) -> Event:
    """Keep an event with the stream on its server; see ``AsyncRHEEDStreamer.mark``."""
    event: dict[str, Json] = {
        "label": _label(label),
        "kind": _checked_kind(kind),
        "value": value,
        # Stamped before anything is sent, so that no retry moves it.
        "time_ms_utc": engine.stamp(0.0, check_capture_ms(time_ms_utc, "time_ms_utc")).start_ms,
        "id": str(uuid.uuid4()),
    }
    if engine.announced(data_id) is False:
        raise StreamError(
            f"Stream {data_id} is on a server that keeps no events (it did not announce itself as an atomstream "
            "server). Nothing was sent, and the frames are not affected; note the event elsewhere.",
            data_id=data_id,
        )
    return event_from(await retrying(lambda: engine.results.mark(data_id, event), attempts=ATTEMPTS))


def check_rpm(rpm: float) -> float:
    """Rotations a minute, 0 to ``MAX_RPM``; raises TypeError, ConfigError."""
    return number_in_range("rpm", rpm, 0.0, MAX_RPM)


def _label(label: str) -> str:
    if not isinstance(label, str):
        raise TypeError(f"label must be a string, not {type(label).__name__}.")
    if len(label) > MAX_LABEL:
        raise ConfigError(f"label has {len(label)} characters; at most {MAX_LABEL} are kept.")
    return label


def _checked_kind(kind: str) -> str:
    if not isinstance(kind, str):
        raise TypeError(f"kind must be a string, not {type(kind).__name__}.")
    if not _KIND.fullmatch(kind):
        raise ConfigError(
            f"kind={kind!r} can't be taken: one word of a-z, 0-9 and _, such as 'shutter', 'laser', 'growth', "
            "'pause' (which begin a segment) or 'note'."
        )
    return kind


# The calibration of a stream: checked here, kept and used by the server.

LONGEST_UNIT: Final = 32


async def calibrate(engine: StreamingSession, data_id: str, given: dict[str, float | str | None]) -> None:
    """Replace the stream's calibration on its server; see ``AsyncRHEEDStreamer.calibrate``."""
    body = {name: _checked(name, value) for name, value in given.items() if value is not None}
    if engine.announced(data_id) is False:
        raise StreamError(
            f"Stream {data_id} is on a server that takes no calibration (it did not announce itself as an "
            "atomstream server). Nothing was sent, and the frames are not affected.",
            data_id=data_id,
        )
    # All of it is replaced by what is sent, so that a repeat is harmless.
    await retrying(lambda: engine.results.calibrate(data_id, body), attempts=ATTEMPTS)


def _checked(name: str, value: float | str | None) -> Json:
    if name != "layer_unit":
        return number_in_range(name, value, 0.0, 1e6)  # type: ignore[arg-type]  # number_in_range raises TypeError
    if not isinstance(value, str):
        raise TypeError(f"layer_unit must be a string, not {type(value).__name__}.")
    if not 0 < len(value) <= LONGEST_UNIT:
        raise ConfigError(
            f"layer_unit={value!r} must have 1 to {LONGEST_UNIT} characters, as 'unit cell' has."
        )
    return value
