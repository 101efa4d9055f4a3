"""Samples, tags, projects and the rows of streams."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _key(name: str, other: str | None = None, **more: Any) -> sa.Column[str]:
    """A column of text, compared by code points, with a foreign key if ``other`` is given."""
    kind = sa.Text(collation="C")
    return sa.Column(name, kind, sa.ForeignKey(other), **more) if other else sa.Column(name, kind, **more)


def _named() -> list[sa.Column[str]]:
    """The columns of something with a name that is unique."""
    return [
        _key("id", primary_key=True),
        _key("name", nullable=False),
        _key("name_key", nullable=False, unique=True),
        _key("made", nullable=False),
    ]


def upgrade() -> None:
    """Make the tables."""
    op.create_table("samples", *_named(), _key("target_material"), _key("detail_notes"))
    op.create_table("tags", *_named())
    op.create_table("projects", *_named(), _key("last_updated", nullable=False))
    op.create_table(
        "tracking",
        _key("project_id", "projects.id", primary_key=True),
        _key("sample_id", "samples.id", primary_key=True),
        sa.Column("active", sa.Boolean, nullable=False),
    )
    op.create_table(
        "streams",
        _key("data_id", primary_key=True),
        _key("name", nullable=False),
        _key("name_key", nullable=False),
        _key("status", nullable=False, index=True),
        sa.Column("fps", sa.Double, nullable=False),
        sa.Column("rpm", sa.Double, nullable=False),
        _key("azimuth_label"),
        _key("project_id", "projects.id"),
        _key("sample_id", "samples.id", index=True),
        _key("made", nullable=False, index=True),
        _key("last_updated", nullable=False),
        sa.Column("n_frames", sa.BigInteger, nullable=False),
        # The time of the description that the row was written from: an older one does not replace it.
        _key("described", nullable=False, server_default=""),
    )
    op.create_table(
        "stream_tags",
        _key("data_id", "streams.data_id", primary_key=True),
        _key("tag_id", "tags.id", primary_key=True),
    )


def downgrade() -> None:
    """Remove the tables."""
    for name in ("stream_tags", "streams", "tracking", "projects", "tags", "samples"):
        op.drop_table(name)
