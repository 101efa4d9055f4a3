"""``atomstream users``: the people who may sign in to a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.people_options import (
    OpenFolder,
    data_option,
    me,
    open_folder,
    print_table,
    project_option,
    seconds_of,
)
from atomstream.config import explicit_endpoint
from atomstream.errors import ConfigError

ROLES = ("viewer", "operator", "admin")
MAX_FILE_BYTES = 4096


@click.group()
def users() -> None:
    """Add, list, change and remove the people of a server; on the data folder, while the server runs or not."""


def _password_options(command: Any) -> Any:
    ask = click.option("--password", "ask", is_flag=True, help="Ask for a password.")
    file = click.option(
        "--password-file",
        metavar="PATH",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File that holds the password, in its first line.",
    )
    return ask(file(command))


@users.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="viewer",
    show_default=True,
    help="viewer: reads; operator: also streams, marks and renames; admin: all rights.",
)
@project_option
@_password_options
@data_option
def add(
    name: str, role: str, projects: tuple[str, ...], ask: bool, password_file: Path | None, data_dir: Path
) -> int:
    """Add the person NAME. Without a password they sign in by a login link or by the institute's sign-in.

    \b
    Examples:
      atomstream users add anna --role admin --password
      atomstream users add "Max Weber" --project "GaN on Si"
    """
    folder = open_folder(data_dir)
    password = _read_password(ask, password_file)
    user = folder.people.add_user(me(), name, role, folder.resolve(projects), password=password)
    console.write(f"Added {user.name}: {user.role}, sees {folder.shown(user.projects)}.")
    if password is None:
        console.write(
            f'They have no password. A link that logs in once: atomstream users login-link "{user.name}"'
        )
    return ExitCode.DONE


def _read_password(ask: bool, file: Path | None) -> str | None:
    if file is not None:
        if ask:
            raise click.UsageError("Give --password or --password-file, not both.")
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_FILE_BYTES).decode()
        except OSError as error:
            raise ConfigError(f"The password file {file} can't be read: {error.strerror or error}.") from None
        except UnicodeDecodeError:
            raise ConfigError(f"The password file {file} is not text in UTF-8.") from None
        return text.partition("\n")[0].rstrip("\r")
    if ask:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return None


@users.command(name="list")
@data_option
def list_users(data_dir: Path) -> int:
    """List all people: name, role, projects, how they sign in, and how many keys they have."""
    folder = open_folder(data_dir)
    directory, passwords = folder.people.directory, folder.people.with_password()
    rows = []
    for user in sorted(directory.users.values(), key=lambda user: user.name.casefold()):
        n_keys = sum(key.user == user.id and not directory.is_expired(key) for key in directory.keys.values())
        ways = [*(["password"] if user.id in passwords else []), *([user.issuer] if user.issuer else [])]
        rows.append(
            (user.name, user.role, folder.shown(user.projects), ", ".join(ways) or "link", str(n_keys))
        )
    print_table(("NAME", "ROLE", "PROJECTS", "SIGNS IN BY", "KEYS"), rows)
    return ExitCode.DONE


@users.command(name="set")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), help="New role.")
@project_option
@click.option("--all-projects", is_flag=True, help="Allow all projects from now on.")
@click.option("--rename", "new_name", metavar="NAME", help="New name.")
@_password_options
@click.option("--no-password", is_flag=True, help="Remove the password.")
@data_option
def set_user(
    name: str,
    role: str | None,
    projects: tuple[str, ...],
    all_projects: bool,
    new_name: str | None,
    ask: bool,
    password_file: Path | None,
    no_password: bool,
    data_dir: Path,
) -> int:
    """Change role, projects, name or password of the person NAME. A new password ends their sessions.

    \b
    Example:
      atomstream users set anna --role operator --project "GaN on Si" --project STO
    """
    if projects and all_projects:
        raise click.UsageError("Give --project or --all-projects, not both.")
    if no_password and (ask or password_file):
        raise click.UsageError("Give --no-password, or a password.")
    folder = open_folder(data_dir)
    fields = _changes(folder, role, projects, all_projects, new_name)
    password = _read_password(ask, password_file)
    if password is not None or no_password:
        fields["password"] = password
    if not fields:
        raise click.UsageError("There is nothing to change: give --role, --project, --rename or --password.")
    user = folder.people.set_user(me(), name, **fields)
    console.write(f"Changed {user.name}: {user.role}, sees {folder.shown(user.projects)}.")
    return ExitCode.DONE


def _changes(
    folder: OpenFolder, role: str | None, projects: tuple[str, ...], all_projects: bool, new_name: str | None
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if role is not None:
        fields["role"] = role
    if projects or all_projects:
        fields["projects"] = folder.resolve(projects)
    if new_name is not None:
        fields["new_name"] = new_name
    return fields


@users.command()
@click.argument("name")
@data_option
def remove(name: str, data_dir: Path) -> int:
    """Remove the person NAME. Their sessions end, and their keys are not valid any more."""
    user = open_folder(data_dir).people.remove_user(me(), name)
    console.write(f"{user.name} is removed, with all their keys.")
    return ExitCode.DONE


@users.command(name="login-link")
@click.argument("name")
@click.option(
    "--valid",
    default="15m",
    show_default=True,
    metavar="TIME",
    help="How long the link can be used, such as 2h.",
)
@click.option(
    "--url",
    metavar="URL",
    help="URL of the server [else $ATOMSTREAM_ENDPOINT, else http://127.0.0.1:8765].",
)
@data_option
def login_link(name: str, valid: str, url: str | None, data_dir: Path) -> int:
    """Print a link that logs the person NAME in, once, in whichever browser opens it first."""
    folder = open_folder(data_dir)
    base = _base_url(url)
    token = folder.people.link_for(me(), name, seconds_of(valid, "--valid"))
    click.echo(f"{base}/login#link={token}")
    return ExitCode.DONE


def _base_url(url: str | None) -> str:
    return explicit_endpoint(url) or "http://127.0.0.1:8765"
