"""Small files that only the server's own user may read: keys and the signing secret."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` at once and durably, readable by its owner alone (mode 0600).

    On Windows the mode has no effect; there the user's own folders are closed to others already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_or_make_secret(path: Path, nbytes: int = 32) -> bytes:
    """The secret kept at ``path``; a fresh random one where there is none."""
    try:
        kept = path.read_bytes()
    except FileNotFoundError:
        kept = b""
    if len(kept) < nbytes:
        kept = secrets.token_bytes(nbytes)
        write_private(path, kept)
    return kept
