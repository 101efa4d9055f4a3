"""Annotations that a user adds to a stream: marks (events), calibration and attributes.

They are checked here and stored by the server.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from atomstream.arguments import check_attributes, check_calibration, check_event
from atomstream.checks import number_in_range
from atomstream.errors import StreamError
from atomstream.protocol import MAX_RPM
from atomstream.records import Json
from atomstream.retry import retrying

if TYPE_CHECKING:  # the service imports aiohttp
    from atomstream.results import Event
    from atomstream.service.api import ServiceApi
    from atomstream.service.results_api import ResultsApi

ATTEMPTS: Final = 4


def new_mark(label: str, kind: str, time_ms_utc: float, value: float | None = None) -> dict[str, Json]:
    """Check the arguments of ``mark`` and make the event to send.

    The id and the time of the event are set here, not by the server, so that a repeated request adds no second event
    and a delayed one does not change the time.

    Raises:
        TypeError: an argument of the wrong type. ConfigError: an invalid argument.
    """
    return {
        "label": label,
        "kind": kind,
        "value": check_event(kind, label, value),
        "time_ms_utc": time_ms_utc,
        "id": str(uuid.uuid4()),
    }


async def send_mark(api: ResultsApi, data_id: str, event: dict[str, Json], announced: bool | None) -> Event:
    """Send an event of :func:`new_mark` and return it as the server stored it.

    Raises:
        StreamError: ``announced`` is False, so the server stores no events; nothing was sent.
        ServiceError: the server refused it or was not reached.
    """
    _check_announced(announced, data_id, "stores no events", "; note the event elsewhere")
    return await retrying(lambda: api.mark(data_id, event), attempts=ATTEMPTS)


def _check_announced(announced: bool | None, data_id: str, refusal: str, advice: str = "") -> None:
    if announced is False:
        raise StreamError(
            f"Stream {data_id} is on a server that {refusal} (it did not announce itself as an atomstream server). "
            f"Nothing was sent, and the frames are not affected{advice}.",
            data_id=data_id,
        )


def check_rpm(rpm: float) -> float:
    """Return ``rpm``, rotations per minute from 0 to ``MAX_RPM``; raises TypeError or ConfigError."""
    return number_in_range("rpm", rpm, 0.0, MAX_RPM)


async def send_calibration(
    api: ResultsApi, data_id: str, values: dict[str, float | str | None], announced: bool | None
) -> None:
    """Check the calibration and replace that of the stream with it; values that are None are left out.

    Raises:
        TypeError, ConfigError: a value of the wrong type, or an invalid one; nothing was sent.
        StreamError: ``announced`` is False, so the server stores no calibration; nothing was sent.
        ServiceError: the server refused it or was not reached.
    """
    body = check_calibration(values)
    _check_announced(announced, data_id, "accepts no calibration")
    # A repeated request is harmless: each one replaces the complete calibration.
    await retrying(lambda: api.calibrate(data_id, body), attempts=ATTEMPTS)


async def send_attributes(
    api: ServiceApi, data_id: str, attributes: Mapping[str, Json], announced: bool | None
) -> None:
    """Check the attributes and add them to those of the stream.

    Raises:
        TypeError, ConfigError: a value of the wrong type, or an invalid one; nothing was sent.
        StreamError: ``announced`` is False, so the server stores no attributes; nothing was sent.
        ServiceError: the server refused it or was not reached.
    """
    body = check_attributes(attributes)
    _check_announced(announced, data_id, "stores no attributes")
    await retrying(lambda: api.set_attributes(data_id, body), attempts=ATTEMPTS)
