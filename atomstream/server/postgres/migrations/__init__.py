"""The versions of the tables on PostgreSQL, for alembic."""
