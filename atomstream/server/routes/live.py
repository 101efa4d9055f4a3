"""The paths of live results, as ``docs/live_api.md`` has them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from atomstream.server.routes import analysis as live_results
from atomstream.server.routes import annotations as live_calibration
from atomstream.server.routes import annotations as live_words
from atomstream.server.routes import feed as live_feed

ROUTES = [
    web.get("/rheed/timeseries/{data_id}/", live_results.timeseries),
    web.get("/rheed/{data_id}/azimuths", live_results.list_azimuths),
    web.patch("/rheed/{data_id}/azimuths/{view_id}", live_results.change_azimuth),
    web.get("/rheed/stream/{data_id}/analysis", live_results.analysis),
    web.post("/rheed/stream/{data_id}/reanalyse", live_results.reanalyse),
    web.get("/rheed/stream/{data_id}/profiles", live_results.profiles),
    web.get("/rheed/stream/{data_id}/feed", live_feed.feed),
    web.get("/rheed/stream/{data_id}/events", live_words.list_events),
    web.post("/rheed/stream/{data_id}/events", live_words.mark_event),
    web.get("/rheed/stream/{data_id}/regions", live_words.get_regions),
    web.put("/rheed/stream/{data_id}/regions", live_words.put_regions),
    web.get("/rheed/stream/{data_id}/calibration", live_calibration.get_calibration),
    web.put("/rheed/stream/{data_id}/calibration", live_calibration.put_calibration),
]
BROWSABLE: frozenset[Any] = frozenset(route.handler for route in ROUTES)
"""The dashboard's pages ask for all of it."""
