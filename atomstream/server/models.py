"""The catalogue's tables. All of them can be rebuilt from the files, so none holds anything of its own.

Moments are ISO 8601 in UTC with microseconds, so that text order is time order.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 1
"""Kept in SQLite's user_version: a catalogue of another version is thrown away and rebuilt."""


def moment(at: datetime | None = None) -> str:
    """``at`` (now) as the catalogue writes it."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


class Base(DeclarativeBase):
    """Base of the tables."""


class Sample(Base):
    """A physical sample; ``name_key`` is what makes two names the same."""

    __tablename__ = "samples"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    target_material: Mapped[str | None] = mapped_column(default=None)
    detail_notes: Mapped[str | None] = mapped_column(default=None)


class Tag(Base):
    """A word that streams are found by."""

    __tablename__ = "tags"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]


class Project(Base):
    """A set of samples under one aim."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    last_updated: Mapped[str]


class Tracking(Base):
    """A sample in a project; at most one of a project's is active."""

    __tablename__ = "tracking"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    active: Mapped[bool]


class Stream(Base):
    """One stream, as its archive's ``about`` tells it; ``n_frames`` is the archive's length."""

    __tablename__ = "streams"
    data_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    fps: Mapped[float]
    rpm: Mapped[float]
    azimuth_label: Mapped[str | None]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    sample_id: Mapped[str | None] = mapped_column(ForeignKey("samples.id"), index=True)
    made: Mapped[str]
    last_updated: Mapped[str]
    n_frames: Mapped[int] = mapped_column(default=0)


class StreamTag(Base):
    """A tag on a stream."""

    __tablename__ = "stream_tags"
    data_id: Mapped[str] = mapped_column(ForeignKey("streams.data_id"), primary_key=True)
    tag_id: Mapped[str] = mapped_column(ForeignKey("tags.id"), primary_key=True)
