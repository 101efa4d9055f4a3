"""The folder that one server owns: made, locked, and left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from atomstream.errors import ConfigError

LOCK_FILE = ".lock"


@contextmanager
def own_data_dir(data_dir: Path, *, must_exist: bool = False) -> Iterator[None]:
    """Hold ``data_dir`` for this process alone; the lock goes with the process, however it ends.

    Raises:
        ConfigError: another server owns it, it can't be made or written, or it should exist and does not.
    """
    if must_exist and not (data_dir / "streams").is_dir():
        raise ConfigError(f"{data_dir} is not the data folder of an atomstream server: it has no 'streams'.")
    try:
        (data_dir / "streams").mkdir(parents=True, exist_ok=True)
        lock = FileLock(data_dir / LOCK_FILE, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"Another atomstream server runs on {data_dir}. Stop it first, or give this one a folder of its own."
        ) from None
    except OSError as error:
        raise ConfigError(f"The data folder {data_dir} can't be used: {error}.") from None
    try:
        yield
    finally:
        lock.release()
