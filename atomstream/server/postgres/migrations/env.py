"""Run by alembic: migrates over the connection that :mod:`atomstream.server.postgres.migrate` has opened."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
