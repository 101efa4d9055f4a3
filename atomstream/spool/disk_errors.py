"""Conversion of OSError into SpoolError, with a message about what is safe and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.system.files import DISK_FULL_ERRNOS

WRITE_REFUSED: Final = "Data written earlier is not affected; the stream continues from memory."
READ_REFUSED: Final = "The file was not changed and can be read when the disk works again."


@contextmanager
def disk_errors(action: str, path: Path, safe: str = WRITE_REFUSED) -> Iterator[None]:
    """Convert an OSError into a SpoolError; ``action`` completes "The spool could not ...".

    Raises:
        SpoolFullError: no space on the disk or in the user's disk quota. SpoolError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        kind, advice = _diagnosis(error)
        reason = error.strerror or str(error)
        raise kind(f"The spool could not {action} ({path}): {reason}. {safe} {advice}") from error


def _diagnosis(error: OSError) -> tuple[type[SpoolError], str]:
    if error.errno in DISK_FULL_ERRNOS:
        return SpoolFullError, "Free some space on that disk."
    return SpoolError, "Check that disk and its permissions, or choose another folder with spool_dir."
