"""The tables that only a catalogue on PostgreSQL has: what is files in the data folder of a single server."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text

SHARED: Final = MetaData()

PEOPLE_LOG: Final = Table(
    "people_log",
    SHARED,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("line", LargeBinary, nullable=False),
)
"""The lines of ``people.jsonl``, from 1; each has the hash of the one before."""

DOCUMENTS: Final = Table(
    "documents",
    SHARED,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
)
"""Small files by name, such as ``sessions.json``; ``version`` grows with each change."""

DELETED_STREAMS: Final = Table(
    "deleted_streams",
    SHARED,
    Column("data_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("made", Text, nullable=False),
    Column("project_id", Text),
)
"""Streams that were deleted, each with the project that it was in."""
