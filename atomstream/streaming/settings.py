"""Constructor arguments of a streamer to :class:`~atomstream.config.ClientSettings`, and the log level."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from atomstream import config
from atomstream.checks import integer_in_range
from atomstream.config import ClientSettings
from atomstream.login import resolve_login

_LEVELS: Final = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def make_settings(
    *,
    api_key: str | None,
    endpoint: str | None,
    spool_dir: str | os.PathLike[str] | None,
    spool_min_free_bytes: int | None,
    buffer_bytes: int | None,
    encoder_threads: int | None,
    clock_sync: bool | None,
    **other: Any,
) -> ClientSettings:
    """Check the arguments and replace each None by its default, from the environment or from this machine.

    ``other`` are fields of ``ClientSettings`` whose defaults do not depend on either.

    Raises:
        ConfigError: an argument is invalid, or there is no API key or no endpoint.
        TypeError: an argument has the wrong type.
    """
    login = resolve_login(api_key, endpoint)
    config.pinned_certificate(login.endpoint)  # an invalid one is an error here, before threads start
    return ClientSettings(
        api_key=login.api_key,
        endpoint=login.endpoint,
        clock_sync=config.clock_sync_enabled() if clock_sync is None else clock_sync,
        buffer_bytes=config.default_buffer_bytes() if buffer_bytes is None else buffer_bytes,
        encoder_threads=config.default_encoder_threads() if encoder_threads is None else encoder_threads,
        spool_dir=config.resolve_spool_dir(spool_dir),
        spool_min_free_bytes=(
            config.SPOOL_MIN_FREE_BYTES if spool_min_free_bytes is None else spool_min_free_bytes
        ),
        **other,
    )


def apply_verbosity(verbosity: int | None) -> None:
    """Set the level of the ``atomstream`` loggers: 0 errors, 1 warnings, 2 progress, 3 everything.

    None leaves logging as the application configured it. A handler that writes to stderr is added only if neither
    the ``atomstream`` logger nor the root logger has a handler.
    """
    if verbosity is None:
        return
    logger = logging.getLogger("atomstream")
    level = integer_in_range("verbosity", verbosity, -(1 << 31), 1 << 31)
    logger.setLevel(_LEVELS[min(max(level, 0), len(_LEVELS) - 1)])
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
