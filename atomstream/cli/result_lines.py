"""The last lines of ``atomstream stream``: where the stream's page is, and what the analysis found."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from atomstream.cli.project import call_service
from atomstream.errors import AtomstreamError
from atomstream.results import measurement_from, received_map

if TYPE_CHECKING:
    from atomstream.login import ServerLogin
    from atomstream.service.api import ServiceApi

WAIT_S: Final = 5.0
"""Longest wait for the end of the analysis."""
PAUSE_S: Final = 0.2
SHOWN: Final = {
    "growth_rate_ml_s": "growth rate",
    "growth_rate_nm_s": "",
    "oscillations_counted": "counted",
    "lattice_spacing": "streak spacing",
}
"""Values that are shown, and their names; those without a name only if they are determined."""


def result_lines(login: ServerLogin, data_id: str) -> list[str]:
    """The page's address and the newest values; empty for a server without them, such as the hosted service."""
    try:
        status = call_service(lambda api: _status(api, data_id), login.endpoint, login.api_key)
        values = {name: measurement_from(value) for name, value in received_map(status.get("values")).items()}
    except (AtomstreamError, ValueError):
        return []
    lines = [f"page: {login.endpoint.rstrip('/')}/streams/{data_id}"]
    if status.get("status") != "ended":
        done, stored = status.get("frames_analysed"), status.get("frames_stored")
        lines.append(f"The analysis has not ended yet ({done} of {stored} frames). The numbers so far:")
    for name, title in SHOWN.items():
        value = values.get(name)
        if value is not None and (title or value.determined):
            lines.append(f"{title or 'the same'}: {value}")
    return lines


async def _status(api: ServiceApi, data_id: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while True:
        status = await api.reading.analysis(data_id)
        if status.get("status") in {"ended", "none"} or time.monotonic() > until:
            return status
        await asyncio.sleep(PAUSE_S)
