"""The calibration of a stream: checked here, kept and used by the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atomstream.config import finite
from atomstream.errors import ConfigError, StreamError
from atomstream.pipeline.retry import retrying
from atomstream.records import Json

if TYPE_CHECKING:
    from atomstream.streaming.engine import Engine

ATTEMPTS: Final = 4
LONGEST_UNIT: Final = 32


async def calibrate(engine: Engine, data_id: str, given: dict[str, float | str | None]) -> None:
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
        return finite(name, value, 0.0, 1e6)  # type: ignore[arg-type]  # finite tells what it is not
    if not isinstance(value, str):
        raise TypeError(f"layer_unit must be a string, not {type(value).__name__}.")
    if not 0 < len(value) <= LONGEST_UNIT:
        raise ConfigError(
            f"layer_unit={value!r} must have 1 to {LONGEST_UNIT} characters, as 'unit cell' has."
        )
    return value
