"""The arguments of ``TimeseriesStreamer.initialize``, as they were passed and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from atomstream.checks import checked_text, integer_in_range
from atomstream.errors import ConfigError
from atomstream.mark_rules import MAX_RULES, MarkRule
from atomstream.protocol import MAX_CHUNK_POINTS, MAX_CHUNK_SIZE
from atomstream.records import StreamSpec
from atomstream.service.payloads import NewSignalsBody
from atomstream.streaming.stream_request import checked_tags, optional_text

NOMINAL_FPS: Final = 1.0
"""Signals have no frame rate, but the description of each stream in the spool has one."""


@dataclass(frozen=True, slots=True)
class SignalsRequest:
    """The arguments as the caller passed them, not yet checked."""

    points_per_chunk: int
    stream_name: str | None = None
    synth_source_id: str | int | None = None
    physical_sample: str | UUID | None = None
    project_id: str | UUID | None = None
    tags: Iterable[str | UUID] | None = None
    marks: Iterable[str] | None = None

    def checked(self) -> CheckedSignals:
        """Check the arguments and convert each one to its type.

        Raises:
            TypeError: an argument has the wrong type. ConfigError (a ValueError): an argument is invalid.
        """
        project = optional_text("project_id", self.project_id)
        if not isinstance(self.synth_source_id, str | int | None):
            raise TypeError(f"synth_source_id must be a str or an int, not {self.synth_source_id!r}.")
        return CheckedSignals(
            points_per_chunk=integer_in_range("points_per_chunk", self.points_per_chunk, 1, MAX_CHUNK_POINTS),
            name=optional_text("stream_name", self.stream_name) or _default_name(datetime.now()),
            synth_source_id=self.synth_source_id,
            sample=optional_text("physical_sample", self.physical_sample),
            project_id=project and project.strip(),
            tags=checked_tags(self.tags),
            marks=_checked_marks(self.marks),
        )


@dataclass(frozen=True, slots=True)
class CheckedSignals:
    """The checked arguments."""

    points_per_chunk: int
    name: str
    synth_source_id: str | int | None
    sample: str | None
    project_id: str | None
    tags: tuple[str, ...]
    marks: tuple[str, ...]

    def body(self) -> NewSignalsBody:
        """The body of the request that creates the stream."""
        return NewSignalsBody(
            self.name, self.points_per_chunk, self.project_id, self.synth_source_id, self.marks
        )

    def spec(self, data_id: str, announced: bool) -> StreamSpec:
        """The stream's description for the pipeline."""
        return StreamSpec(data_id, NOMINAL_FPS, 0.0, MAX_CHUNK_SIZE, self.name, announced, "signals")


def _default_name(now: datetime) -> str:
    return f"Signals @ {now.hour % 12 or 12}:{now.minute:02d}{'AM' if now.hour < 12 else 'PM'}"


def _checked_marks(marks: Iterable[str] | None) -> tuple[str, ...]:
    if marks is None:
        return ()
    if isinstance(marks, str | bytes) or not isinstance(marks, Iterable):
        raise TypeError(f"marks must be a list of rules, such as ['shutter>0.5 -> open'], not {marks!r}.")
    rules = tuple(marks)
    for rule in rules:
        MarkRule.parse(checked_text("marks", rule))
    if len(rules) > MAX_RULES:
        raise ConfigError(f"{len(rules)} rules for marks are too many; at most {MAX_RULES} are allowed.")
    return rules
