"""Stores for tests: a separate prefix in the S3 server of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS
    from atomstream.server.ports.s3_store import S3Store


def s3_store(server: SeaweedFS, prefix: str, **options: Any) -> S3Store:
    """A store below ``prefix`` in the bucket of ``server``. The caller closes it."""
    from atomstream.cluster.engines import BUCKET
    from atomstream.server.ports.s3_store import S3Store

    keys = {"access_key_id": server.access_key, "secret_access_key": server.secret_key}
    return S3Store(BUCKET, prefix, endpoint=server.url, **{**keys, **options})


def s3_url(server: SeaweedFS, prefix: str) -> str:
    """The URL of the same store, for ``--store``; the keys are ``server.environment``."""
    from atomstream.cluster.engines import BUCKET

    return f"s3://{BUCKET}/{prefix}?endpoint={server.url}&region=us-east-1"
