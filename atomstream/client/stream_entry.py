"""One stream in the list of a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SIGNALS_TYPE: Final = "tool_state"
FRAMES_TYPE: Final = "rheed"
"""The values of ``data_type`` in the server's list, and the kinds of streams that they stand for."""


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """A stream as the server lists it. ``length_s`` is in seconds, ``fps`` in frames per second, ``rpm`` in 1/min.

    ``status`` is one of ``stream_active``, ``stream_interrupted``, ``stream_finalizing``, ``stream_error``,
    ``success``, ``error``. ``kind`` is ``"frames"`` or ``"signals"``. ``raw`` has all fields as the server sent them.
    """

    data_id: str
    name: str
    status: str
    length_s: float
    sample: str | None
    sample_id: str | None
    project: str | None
    tags: tuple[str, ...]
    created: str
    fps: float | None
    rpm: float | None
    kind: str
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> StreamEntry:
        """The entry of a map of ``GET /data_entries/``. Fields of other types than expected become None or empty."""
        meta = raw.get("file_metadata")
        meta = meta if isinstance(meta, Mapping) else {}
        projects = _names(raw.get("projects"))
        return cls(
            data_id=str(raw["data_id"]),
            name=_text(raw.get("raw_name")) or "",
            status=_text(raw.get("pipeline_status")) or "",
            length_s=_number(raw.get("growth_length")) or 0.0,
            sample=_text(raw.get("physical_sample_name")),
            sample_id=_text(raw.get("physical_sample_id")),
            project=projects[0] if projects else None,
            tags=_names(raw.get("tags")),
            created=_text(raw.get("upload_datetime")) or "",
            fps=_number(meta.get("fps_capture_rate")),
            rpm=_number(meta.get("rotations_per_min")),
            kind="signals" if raw.get("char_source_type") == SIGNALS_TYPE else "frames",
            raw=raw,
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _names(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    names = [item.get("name") if isinstance(item, Mapping) else item for item in items]
    return tuple(name for name in names if isinstance(name, str))
