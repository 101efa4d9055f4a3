"""The error of a request that needs the shared catalogue while it can't be reached."""

from __future__ import annotations

from atomstream.errors import AtomstreamError


class CatalogueUnavailableError(AtomstreamError):
    """The database can't be reached now; nothing was changed. The same request may succeed later."""

    retriable = True


class CatalogueBusyError(CatalogueUnavailableError):
    """Another server has held a lock of the database for long; nothing was changed."""
