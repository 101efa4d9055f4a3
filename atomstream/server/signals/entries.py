"""Streams of signals in the list of all streams: ``GET /data_entries/?data_type=tool_state``.

Without that data type the list has streams of frames only, as clients of the protocol expect. The length of a stream
of signals is not known without reading its points: it is given as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from atomstream.protocol import normalized_name
from atomstream.server.catalogue.catalogue import OWNER
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.signals.stream import SignalsAbout

SIGNALS_TYPE: Final = "tool_state"
"""The data type of signals in the list."""


def wants_signals(wanted: EntryFilter) -> bool:
    """Whether the list is to have signals."""
    return SIGNALS_TYPE in wanted.data_types


def matching(abouts: Iterable[SignalsAbout], wanted: EntryFilter) -> list[dict[str, Any]]:
    """The entries of the streams of signals that match ``wanted``, in no order, also those before its page."""
    return [_entry(about) for about in abouts if _matches(about, wanted)]


def page(entries: Iterable[dict[str, Any]], wanted: EntryFilter) -> list[dict[str, Any]]:
    """Frames and signals in the order of the list, the newest first: the page that ``wanted`` names."""
    ordered = sorted(entries, key=lambda one: one["data_id"])
    ordered.sort(key=lambda one: str(one["upload_datetime"]), reverse=True)
    if wanted.after is not None:
        places = [place for place, one in enumerate(ordered) if one["data_id"] == wanted.after]
        ordered = ordered[places[0] + 1 :] if places else []
    return ordered if wanted.limit is None else ordered[: wanted.limit]


def _matches(about: SignalsAbout, wanted: EntryFilter) -> bool:
    project = about.project.id if about.project else None
    sample = about.sample.id if about.sample else None
    names = [normalized_name(name) for name in _names(about)]
    return (
        (wanted.visible is None or project in wanted.visible)
        and all(any(normalized_name(word) in name for name in names) for word in wanted.keywords)
        and (not wanted.data_ids or about.data_id in wanted.data_ids)
        and (not wanted.sample_ids or sample in wanted.sample_ids)
        and (not wanted.project_ids or project in wanted.project_ids)
        and (not wanted.statuses or about.status in wanted.statuses)
        and _within(0.0, wanted.growth_length)
        and _within(about.made, wanted.uploaded)
        and _within(about.last_updated, wanted.updated)
    )


def _names(about: SignalsAbout) -> Iterator[str]:
    yield about.name
    if about.sample is not None:
        yield about.sample.name
    yield from (tag.name for tag in about.tags)


def _within(value: Any, bounds: tuple[Any, Any]) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)


def _entry(about: SignalsAbout) -> dict[str, Any]:
    return {
        "data_id": about.data_id,
        "char_source_type": SIGNALS_TYPE,
        "raw_name": about.name,
        "pipeline_status": about.status,
        "upload_datetime": about.made,
        "last_updated": about.last_updated,
        "collected_datetime": about.made,
        "growth_length": 0.0,
        "physical_sample_id": about.sample.id if about.sample else None,
        "physical_sample_name": about.sample.name if about.sample else None,
        "projects": [{"id": about.project.id, "name": about.project.name}] if about.project else [],
        "tags": [{"id": tag.id, "name": tag.name} for tag in about.tags],
        "owner_name": OWNER,
        "file_metadata": {"marks": list(about.marks)},
    }
