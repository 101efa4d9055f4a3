"""The lock on a server's data folder: one server process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from atomstream.errors import ConfigError
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import (
    FILE_MODE,
    exposure_of,
    is_link,
    make_file_private,
    make_private,
    prepare_for_library,
    read_plain,
)

log = get_logger("atomstream.server")

LOCK_FILE = ".lock"

STORE_FILE: Final = "cache-of.txt"
"""File in a data folder that is a cache; it contains the name of the store that has the streams."""

UPKEEP_LOCK: Final = ".upkeep-lock"
"""Held while a backup or the rules of retention work on the folder, which exclude each other."""

RESTORING: Final = ".restoring"
"""A folder in the data folder while a backup is restored into it."""

_CATALOGUE: Final = "catalogue.sqlite"

SET_ASIDE: Final = "damaged"
"""The folder to which files and folders are moved that occupy the path of one of the server's own files."""

EXPORTS: Final = "exports"
"""The folder of files that are being made for a download; emptied at the start."""

_REPLACEABLE: Final = (
    "names.jsonl",
    "alarms.json",
    "instruments.json",
    "sessions.json",
    "signing.key",
    "key-use.json",
    "people.lock",
)
"""Files that a server can do without. The file of the keys is not one of them: without it, the next start would make a
new key and accept it."""

_OWN_NAMES: Final = frozenset(
    {
        LOCK_FILE,
        SET_ASIDE,
        EXPORTS,
        "streams",
        "signals",
        "cluster.json",
        "keys.json",
        "key-use.json",
        "names.jsonl",
        "passwords.json",
        "people.jsonl",
        "people.lock",
        "sessions.json",
        "signing.key",
        "tls-cert.pem",
        "tls-key.pem",
        UPKEEP_LOCK,
        STORE_FILE,
        "retention.json",
        "alarms.json",
        "instruments.json",
        *(_CATALOGUE + suffix for suffix in ("", "-wal", "-shm", "-run")),
    }
)
"""The entries of a data folder. Other files in it are those of somebody else."""

COPIED_NAMES: Final = frozenset(
    name
    for name in _OWN_NAMES
    - {LOCK_FILE, UPKEEP_LOCK, STORE_FILE, "retention.json", SET_ASIDE, EXPORTS, "streams", "signals"}
    - {"sessions.json", "signing.key", "tls-cert.pem", "tls-key.pem"}
    - {"key-use.json", "people.lock"}
    if not name.startswith(_CATALOGUE)
)
"""The files beside ``streams`` that a backup has. The catalogue is built from the files. Sessions, the secret of
upload URLs and a self-signed certificate are made again, so that a backup has no valid secret in it."""


def _is_own(name: str) -> bool:
    """Whether an entry of a data folder is the server's, also one that is set aside or being written."""
    return name == RESTORING or any(name == own or name.startswith(f"{own}.") for own in _OWN_NAMES)


def set_aside_foreign(data_dir: Path, note: Callable[[str, str], None]) -> None:
    """Move folders, pipes and devices away that have the name of a file of the server. Links are handled elsewhere.

    ``note`` receives the name of each and a sentence.

    Raises:
        ConfigError: that is not possible.
    """
    for name in _REPLACEABLE:
        path, number = data_dir / name, 1
        if is_link(path) or not path.exists() or path.is_file():
            continue
        folder = data_dir / SET_ASIDE
        while (target := folder / f"{name}-{number}").exists():
            number += 1
        try:
            LOCAL.make_folder(folder, durable=False, inside=data_dir)
            LOCAL.rename(path, target)
        except OSError as error:
            raise ConfigError(f"{path} is not a file and can't be moved away: {error.strerror}.") from None
        note(name, f"something else had this name; it was moved to {SET_ASIDE}/{target.name}")


@contextmanager
def own_data_dir(data_dir: Path, *, must_exist: bool = False, store: str | None = None) -> Iterator[None]:
    """Create ``data_dir`` and lock it for this process; the operating system releases the lock when the process ends.

    ``store`` is the name of the store that the folder is a cache of; None if it has the streams itself.

    Raises:
        ConfigError: another server has the lock, the folder can't be created or written, ``must_exist`` and it
            does not, or it is a cache of another store, or it contains streams itself.
    """
    if must_exist and not (data_dir / "streams").is_dir():
        raise ConfigError(f"{data_dir} is not the data folder of an atomstream server: it has no 'streams'.")
    if (data_dir / RESTORING).exists():
        raise ConfigError(
            f"A backup was being restored into {data_dir}, and that was interrupted. Run atomstream restore again."
        )
    try:
        LOCAL.make_folder(data_dir / "streams")
        make_private(data_dir / "streams")
        make_private(data_dir, _is_own)
        if exposure := exposure_of(data_dir):
            log.warning(
                "The data folder %s %s. Choose another one, or make it private (chmod 700).",
                data_dir,
                exposure,
            )
        for name in _OWN_NAMES - {"streams", "signals", SET_ASIDE}:
            make_file_private(data_dir / name)
        lock = lock_data_dir(data_dir)
    except OSError as error:
        raise ConfigError(f"The data folder {data_dir} can't be used: {error}.") from None
    try:
        if not check_cache(data_dir, store) and store is not None:
            LOCAL.write_atomic(data_dir / STORE_FILE, [f"{store}\n".encode()])
        _remove_exports(data_dir)
        yield
    finally:
        lock.release()


def check_cache(data_dir: Path, store: str | None) -> bool:
    """Whether the folder is noted as the cache of ``store`` already.

    Raises:
        ConfigError: it is the cache of another store, or ``store`` is None and it is a cache, or it has streams of
            its own.
    """
    try:
        noted = read_plain(data_dir / STORE_FILE).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        if store is not None and (data_dir / "streams").is_dir() and any((data_dir / "streams").iterdir()):
            raise ConfigError(
                f"{data_dir} contains streams, which --store would hide. Give --data an empty folder."
            ) from None
        return False
    if store is None:
        raise ConfigError(
            f"{data_dir} is only a cache of {noted}, which has the streams. Start the server with that --store; "
            "commands on a data folder do not work on a cache."
        )
    if noted != store:
        raise ConfigError(f"{data_dir} is a cache of {noted}, not of {store}. Give --data another folder.")
    return True


def _remove_exports(data_dir: Path) -> None:
    """Remove the files of exports during which an earlier process was killed."""
    folder = data_dir / EXPORTS
    if is_link(folder) or not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(OSError):
            path.unlink()


def lock_data_dir(data_dir: Path) -> FileLock:
    """Lock an existing data folder for this process, until ``release()`` or the end of the process.

    Raises:
        ConfigError: a server has the lock. OSError: from the disk.
    """
    prepare_for_library(data_dir / LOCK_FILE)
    lock = FileLock(data_dir / LOCK_FILE, timeout=0, thread_local=False, mode=FILE_MODE)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"Another atomstream server runs on {data_dir}. Stop it first, or give this one a different folder."
        ) from None
    return lock


def upkeep_lock(data_dir: Path) -> FileLock:
    """The lock that a backup and a run of the rules of retention exclude each other by; not yet acquired."""
    prepare_for_library(data_dir / UPKEEP_LOCK)
    return FileLock(data_dir / UPKEEP_LOCK, timeout=0, thread_local=False, mode=FILE_MODE)
