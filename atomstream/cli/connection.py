"""The options that say which server is meant, shared by all commands that talk to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: F) -> F:
    """Add ``--endpoint`` and ``--api-key``; both are None where the environment shall say."""
    endpoint = click.option(
        "--endpoint",
        metavar="URL",
        help="The server [else $ATOMSTREAM_ENDPOINT, else the hosted service].",
    )
    api_key = click.option("--api-key", metavar="KEY", help="Its API key [else $ATOMSTREAM_API_KEY].")
    return endpoint(api_key(command))
