"""``atomstream login`` and ``logout``: save the server and the API key that this user's programs use."""

from __future__ import annotations

import click

from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.key_argument import api_key_options
from atomstream.cli.project import call_service
from atomstream.config import checked_api_key, environment_api_key, normalise_endpoint
from atomstream.errors import AtomstreamError, ConnectionFailedError
from atomstream.login import ServerLogin, remove_login, save_login


@click.command()
@click.option("--endpoint", metavar="URL", help="URL of the server; asked for if it is not given.")
@api_key_options("API key of the server [else $ATOMSTREAM_API_KEY, else it is asked for].")
@click.option(
    "--no-check", is_flag=True, help="Save them without asking the server whether the key is right."
)
def login(endpoint: str | None, api_key: str | None, no_check: bool) -> int:
    """Save which server this computer streams to, and the API key.

    Streamers and commands then need neither argument nor environment variable; those that are given go first. The saved
    key is only sent to the saved server. The file can be read by your user only.

    \b
    Examples:
      atomstream login
      atomstream login --endpoint http://lab-server:8765 --api-key-file key.txt
    """
    address = normalise_endpoint(
        endpoint or click.prompt("Address of the server, such as http://lab-server:8765")
    )
    # --api-key on the command line arrives by the environment (see hide_key_argument).
    given = api_key or environment_api_key() or click.prompt("API key (it is not shown)", hide_input=True)
    saved = ServerLogin(address, checked_api_key(given.strip()))
    if not no_check:
        _check(saved)
    path = save_login(saved)
    click.echo(f"Saved in {path}. Streamers and commands of this user now use {address}.")
    return ExitCode.DONE


def _check(saved: ServerLogin) -> None:
    """Ask the server for something that needs the key.

    Raises:
        AtomstreamError: the server was not reached, or refuses the key.
    """
    try:
        call_service(lambda api: api.list_samples(), saved.endpoint, saved.api_key)
    except ConnectionFailedError as error:
        raise ConnectionFailedError(f"{error} Nothing was saved; --no-check saves without asking.") from None
    except AtomstreamError as error:
        click.echo("Nothing was saved.", err=True)
        raise error


@click.command()
def logout() -> int:
    """Remove the server and the API key that ``atomstream login`` saved."""
    click.echo("The saved login is removed." if remove_login() else "There was no saved login.")
    return ExitCode.DONE
