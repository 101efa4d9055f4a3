"""The calibration of a stream: given when it is created, or set later."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from atomstream.analysis import Calibration
from atomstream.errors import ConfigError
from atomstream.server.bodies import read_json
from atomstream.server.replies import RefusedError, json_reply
from atomstream.server.routes.live_results import desk_of


class CalibrationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body that sets the calibration; what is left out is not known."""

    beam_energy: float | None = None
    screen_sample_distance: float | None = None
    px_per_mm: float | None = None
    incidence_deg: float = 0.0
    layer_thickness_nm: float | None = None
    layer_unit: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "monolayer"
    miller_n: float = 1.0
    reference_spacing_px: float | None = None


RANGES: Final = {
    "beam_energy": (1.0, 200.0, "keV"),
    "screen_sample_distance": (10.0, 5000.0, "mm"),
    "px_per_mm": (0.1, 1000.0, "px/mm"),
    "incidence_deg": (0.0, 15.0, "degrees"),
    "layer_thickness_nm": (0.01, 100.0, "nm"),
    "miller_n": (0.01, 100.0, ""),
    "reference_spacing_px": (1.0, 10000.0, "px"),
}
"""What can be meant: wider than any RHEED chamber, narrow enough to catch eV for keV and Å for mm."""


def checked_calibration(wanted: CalibrationBody) -> dict[str, Any]:
    """What was given, as plain values; raises RefusedError 400 for what can't be meant."""
    plain: dict[str, Any] = msgspec.to_builtins(wanted)
    _check_ranges(plain)
    try:
        Calibration(**plain)
    except ConfigError as error:
        raise RefusedError(400, f"{error}. Nothing was changed.") from None
    return plain


async def get_calibration(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/calibration``."""
    return json_reply((await desk_of(request)).inputs.last("calibration", {}))


async def put_calibration(request: web.Request) -> web.Response:
    """``PUT /rheed/stream/{data_id}/calibration``: from now on; a finished stream is analysed again with it."""
    desk, wanted = await desk_of(request), await read_json(request, CalibrationBody)
    plain = checked_calibration(wanted)
    await desk.calibrate(plain)
    return json_reply(plain)


def _check_ranges(calibration: dict[str, Any]) -> None:
    for name, (low, high, unit) in RANGES.items():
        value = calibration.get(name)
        if value is not None and not low <= value <= high:
            raise RefusedError(
                400,
                f"calibration: {name} must lie from {low:g} to {high:g} {unit}".rstrip()
                + f", not {value:g}. Nothing was changed.",
            )
