"""From constructor arguments to :class:`~atomstream.config.ClientSettings`: defaults are filled in here."""

from __future__ import annotations

import os
from typing import Any

from atomstream import config
from atomstream.config import ClientSettings
from atomstream.streaming.verbosity import apply_verbosity


def make_settings(
    api_key: str | None, endpoint: str | None, verbosity: int | None, clock_sync: bool | None,
    buffer_bytes: int | None, encoder_threads: int | None, spool_dir: str | os.PathLike[str] | None,
    spool_min_free_bytes: int | None, **rest: Any,
) -> ClientSettings:  # fmt: skip
    """Check and complete what a streamer was told.

    Raises:
        ConfigError: a setting that can't be meant, or no key.
    """
    apply_verbosity(verbosity)
    key = config.resolve_api_key(api_key)
    return ClientSettings(
        api_key=key,
        endpoint=config.resolve_endpoint(endpoint, key),
        clock_sync=config.clock_sync_wanted() if clock_sync is None else clock_sync,
        buffer_bytes=config.default_buffer_bytes() if buffer_bytes is None else buffer_bytes,
        encoder_threads=config.default_encoder_threads() if encoder_threads is None else encoder_threads,
        spool_dir=config.resolve_spool_dir(spool_dir),
        spool_min_free_bytes=(
            config.SPOOL_MIN_FREE_BYTES if spool_min_free_bytes is None else spool_min_free_bytes
        ),
        **rest,
    )
