"""URLs of services on a command line: never with a secret, which every user of the computer could read there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import click

F = TypeVar("F", bound=Callable[..., Any])

_SECRET_NAMES: Final = ("password", "passwd", "secret", "token", "credential", "sslpassword")
"""Parts of the names of options in a URL that are secrets."""


def without_secret(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    """Callback of an option: its URL, if that has no secret in it and comes from the command line.

    Raises:
        click.BadParameter: the URL has a password, or an option with a secret. The message does not repeat it.
    """
    source = context.get_parameter_source(parameter.name or "")
    if url is None or source is not click.core.ParameterSource.COMMANDLINE or not has_secret(url):
        return url
    option, variable = parameter.opts[0], variable_of(parameter)
    raise click.BadParameter(
        f"The URL of {option} has a password in it, and every user of this computer can read a command line. Give the "
        f"URL without it, and the password in the environment or in a file ({_WAYS.get(option, '')}); or the whole "
        f"URL as ${variable}, or in the file of --config. Nothing was started."
    )


_WAYS: Final = {
    "--catalogue": "$ATOMSTREAM_CATALOGUE_PASSWORD, or $ATOMSTREAM_CATALOGUE_PASSWORD_FILE with the path of a file",
    "--store": "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY",
    "--bus": "$ATOMSTREAM_BUS_PASSWORD, or $ATOMSTREAM_BUS_CREDENTIALS with the path of a file",
}


CATALOGUE_HELP: Final = "PostgreSQL database that servers share: postgresql://USER@HOST/DATABASE"


BUS_HELP: Final = (
    "Message bus, for analysis in other processes: nats://HOST:4222, several with commas between them"
)


def variable_of(parameter: click.Parameter) -> str:
    """The environment variable that replaces an option of ``atomstream serve``."""
    return f"ATOMSTREAM_SERVER_{(parameter.name or '').upper()}"


def has_secret(url: str) -> bool:
    """Whether a URL has a password, or an option whose name is that of a secret."""
    try:
        parts = urlsplit(url)
        named = parse_qsl(parts.query, keep_blank_values=True)
        password = parts.password
    except ValueError:  # a text that can't be parsed may contain a password
        return "@" in url
    if password or ("@" in parts.netloc and parts.scheme == "nats" and ":" not in parts.netloc.split("@")[0]):
        return True  # nats://TOKEN@HOST is a token
    return any(part in name.lower() for name, _ in named for part in _SECRET_NAMES)


def service_url(option: str, help_text: str) -> Callable[[F], F]:
    """The decorator of an option with the URL of a service."""
    return click.option(option, metavar="URL", callback=without_secret, help=help_text)
