""""""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.system.files import DISK_FULL_ERRNOS

WRITE_REFUSED: Final = "Nothing written before is affected; the stream goes on from memory."

READ_REFUSED: Final = "The file was left as it is, and can be read again once the disk is well."


@contextmanager
def disk_errors(action: str, path: Path, safe: str = WRITE_REFUSED) -> Iterator[None]:
    """Turn an OSError inside into the SpoolError that a person can act on; ``safe`` says what is safe.

    Raises:
        SpoolFullError: the disk or the user's quota has no room. SpoolError: it failed in another way.
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
    return SpoolError, "Check that disk and who may write there, or choose another with spool_dir."
