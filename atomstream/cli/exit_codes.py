"""What a command's exit code says, and which error becomes which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from atomstream.errors import AtomstreamError, ConfigError, LinkError, ServiceError, StreamGoneError


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    INCOMPLETE = 1
    USAGE = 2
    SERVICE = 3
    INTERRUPTED = 130


EXIT_CODES: Final = """\b
Exit codes:
    0  done; of streams: every frame is stored
    1  something was not delivered, or differs
    2  the command line or its input can't be meant
    3  the server was not reached, or refused (key, sample, project)
  130  Ctrl-C; all that was read before it is stored
"""


class MissingPackagesError(AtomstreamError):
    """The command needs an extra that is not installed; the sentence says which."""


def exit_code_of(error: Exception) -> ExitCode | None:
    """The code of an error that was raised on purpose; None for a bug, which deserves its traceback."""
    if isinstance(error, (ServiceError, LinkError, StreamGoneError)):
        return ExitCode.SERVICE
    if isinstance(error, (ConfigError, MissingPackagesError, OSError)):
        return ExitCode.USAGE
    return ExitCode.INCOMPLETE if isinstance(error, AtomstreamError) else None


def sentence_of(error: Exception) -> str:
    """What to tell a person: one paragraph, no traceback."""
    return " ".join(str(error).split()) or type(error).__name__


def need_server() -> None:
    """Make sure that the server's packages are there.

    Raises:
        MissingPackagesError: they are not.
    """
    try:
        import zarr  # noqa: F401

        import atomstream.server.runner  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackagesError(
            f"This command needs the server's packages, and {error.name!r} is not installed: "
            "pip install 'atomstream[server]'"
        ) from None
