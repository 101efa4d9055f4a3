"""What ``verbosity`` means: how much the ``atomstream`` loggers say on stderr."""

from __future__ import annotations

import logging
from typing import Final

_LEVELS: Final = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def apply_verbosity(verbosity: int | None) -> None:
    """0 errors, 1 warnings, 2 progress, 3 all; None leaves logging as the application set it up."""
    if verbosity is None:
        return
    logger = logging.getLogger("atomstream")
    logger.setLevel(_LEVELS[min(max(int(verbosity), 0), len(_LEVELS) - 1)])
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
