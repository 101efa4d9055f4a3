"""Exit codes of the commands, and the exit code of each error."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from atomstream.errors import (
    AtomstreamError,
    CameraError,
    ConfigError,
    LinkError,
    ServiceError,
    StreamGoneError,
)


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    INCOMPLETE = 1
    USAGE = 2
    SERVICE = 3
    DAMAGED = 4
    INTERRUPTED = 130


EXIT_CODES: Final = """\b
Exit codes:
    0  success; for streams: every frame is stored
    1  some data was not delivered, or differs
    2  invalid command line or input
    3  server not reachable, or request refused (key, sample, project)
    4  the recording is damaged: all its readable frames are stored, the report lists the missing ones
  130  Ctrl-C; all frames read before it are stored
"""


class MissingPackagesError(AtomstreamError):
    """The command needs an optional package that is not installed; the message names it."""


def exit_code_of(error: Exception) -> ExitCode | None:
    """Return the exit code of an expected error; None for any other, which is a bug and shows its traceback."""
    if isinstance(error, (ServiceError, LinkError, StreamGoneError)):
        return ExitCode.SERVICE
    if isinstance(error, (ConfigError, CameraError, MissingPackagesError, OSError)):
        return ExitCode.USAGE
    return ExitCode.INCOMPLETE if isinstance(error, AtomstreamError) else None


def message_of(error: Exception) -> str:
    """Return the error message as one paragraph without traceback."""
    return " ".join(str(error).split()) or type(error).__name__


def require_server() -> None:
    """Check that the packages of the server are installed.

    Raises:
        MissingPackagesError: One is missing.
    """
    try:
        import zarr  # noqa: F401  (to check that it is installed)

        import atomstream.server.runner  # noqa: F401  (to check that its packages are installed)
    except ModuleNotFoundError as error:
        raise MissingPackagesError(
            f"This command needs the packages of the server, but {error.name!r} is not installed: "
            "pip install 'atomstream[server]'"
        ) from None
