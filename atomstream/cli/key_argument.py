"""API keys on the command line: read from a file, and removed from the list of processes.

Every user of a computer can read the arguments of all processes (``ps``). So a command that was started with
``--api-key KEY`` starts again in the same process, with the key in its environment, which only its own user can read.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from atomstream.config import read_key_file

F = TypeVar("F", bound=Callable[..., Any])

_OPTION: Final = "--api-key"


def api_key_options(help_text: str) -> Callable[[F], F]:
    """Add ``--api-key`` and ``--api-key-file``; the command gets the key of either as ``api_key``, or None."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*args: Any, api_key: str | None, api_key_file: Path | None, **more: Any) -> Any:
            if api_key_file is not None:
                if api_key is not None:
                    raise click.UsageError("Give --api-key or --api-key-file, not both.")
                api_key = read_key_file(api_key_file)
            return command(*args, api_key=api_key, **more)

        file = click.option(
            "--api-key-file",
            metavar="PATH",
            type=click.Path(path_type=Path),
            help="File that holds the API key [else $ATOMSTREAM_API_KEY_FILE].",
        )
        key = click.option(_OPTION, metavar="KEY", help=help_text)
        return cast("F", key(file(run)))

    return decorate


def is_own_process() -> bool:
    """True if ``sys.argv`` are the arguments of this process; False in a program that calls a command as a function."""
    given = sys.argv[1:]
    return len(given) < len(sys.orig_argv) and sys.orig_argv[len(sys.orig_argv) - len(given) :] == given


def hide_key_argument() -> None:
    """Start this process again without the key in its arguments, if it is there. Does nothing on Windows.

    There, other users can't read the arguments of a process. Call it if :func:`is_own_process`.
    """
    given = sys.argv[1:]
    rest, key = without_key(given)
    if key is None or os.name == "nt" or not sys.executable:
        return
    interpreter_arguments = sys.orig_argv[1 : len(sys.orig_argv) - len(given)]
    environment = {**os.environ, "ATOMSTREAM_API_KEY": key}
    try:
        os.execve(sys.executable, [sys.executable, *interpreter_arguments, *rest], environment)
    except OSError:  # then the key stays visible, which is better than no stream
        return


def without_key(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The arguments without the option ``--api-key``, and its value; None if there is none, or also a key file."""
    rest, key = list[str](), None
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == _OPTION:
            key = next(words, None)
        elif word.startswith(_OPTION + "="):
            key = word.partition("=")[2]
        else:
            rest.append(word)
    if not (key or "").strip() or any(word.startswith("--api-key-file") for word in rest):
        return list(arguments), None
    return rest, key
