"""``atomstream keys``: make, list, revoke and rotate the API keys of a server."""

from __future__ import annotations

from pathlib import Path

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.people_options import (
    data_option,
    end_of,
    me,
    moment,
    open_folder,
    print_table,
    project_option,
    seconds_of,
)

SCOPES = ("read", "write", "admin")
SERVER = "the server"


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate API keys; on the data folder, while the server runs or not."""


@keys.command()
@click.option("--user", default="", metavar="NAME", help="Person that the key belongs to.")
@click.option(
    "--instrument", default="", metavar="NAME", help="Instrument that it belongs to, such as 'MBE 3'."
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    required=True,
    help="What it may do: read; write (streams, marks, samples); admin (all, also delete, people and keys).",
)
@project_option
@click.option(
    "--expires",
    default="never",
    show_default=True,
    metavar="WHEN",
    help="End of validity: after a time (90d) or at a date.",
)
@data_option
def create(
    user: str, instrument: str, scope: str, projects: tuple[str, ...], expires: str, data_dir: Path
) -> int:
    """Make an API key and print it, this one time. Only its hash is stored.

    \b
    Examples:
      atomstream keys create --instrument "MBE 3" --scope write --project "GaN on Si"
      atomstream keys create --user anna --scope read --expires 90d
    """
    folder = open_folder(data_dir)
    made = folder.people.create_key(
        me(),
        scope,
        user=user,
        instrument=instrument,
        projects=folder.resolve(projects),
        expires=end_of(expires, "--expires"),
    )
    _show_secret(made.key.id, made.secret)
    return ExitCode.DONE


def _show_secret(key_id: str, secret: str) -> None:
    console.write(f"Key {key_id}; it is shown only once, so save it now:")
    click.echo(secret)


@keys.command(name="list")
@data_option
def list_keys(data_dir: Path) -> int:
    """List all keys: id, owner, scope, projects, when each was made, was used last, and expires."""
    from atomstream.server.http.key_use import read_key_use
    from atomstream.server.http.own_key import own_keys

    folder = open_folder(data_dir)
    used, directory = read_key_use(folder.documents), folder.people.directory
    rows = [
        (one.sha256[:8], SERVER, "admin", "all projects", moment(one.made), "-", moment(one.expires))
        for one in own_keys(folder.documents)
    ]
    for key in sorted(directory.keys.values(), key=lambda key: key.made):
        ends = f"{moment(key.expires)}{' (expired)' if directory.is_expired(key) else ''}"
        owner = directory.owner_of(key) if key.user else f"{key.instrument} (instrument)"
        rows.append(
            (
                key.id,
                owner,
                key.scope,
                folder.shown(key.projects),
                moment(key.made),
                moment(used.get(key.id)),
                ends,
            )
        )
    print_table(("ID", "OWNER", "SCOPE", "PROJECTS", "MADE", "LAST USED", "EXPIRES"), rows)
    return ExitCode.DONE


@keys.command()
@click.argument("key_id", metavar="ID")
@data_option
def revoke(key_id: str, data_dir: Path) -> int:
    """Revoke the key with that ID (or its first digits): from now on requests with it are refused.

    A running server applies it within a second or two. Upload addresses that it gave out before stay valid for their
    15 minutes.
    """
    from atomstream.server.http.own_key import is_own_key, revoke_own_keys

    folder = open_folder(data_dir)
    if is_own_key(folder.documents, folder.people, key_id):
        revoke_own_keys(folder.documents, folder.people, me())
        console.write("The server's own key is revoked. A start with --api-key makes that key valid again.")
        return ExitCode.DONE
    key = folder.people.revoke_key(me(), key_id)
    console.write(f"Key {key.id} is revoked.")
    return ExitCode.DONE


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old key stays valid, such as 7d; 0s: not at all.",
)
@data_option
def rotate(key_id: str, overlap: str, data_dir: Path) -> int:
    """Make a new key in place of the one with that ID, with the same owner, scope and projects, and print it.

    The old one stays valid for a while, so that instruments can be changed one after the other.
    """
    from atomstream.server.http.own_key import is_own_key, rotate_own_key

    folder, overlap_s = open_folder(data_dir), seconds_of(overlap, "--overlap")
    if is_own_key(folder.documents, folder.people, key_id):
        new_id, secret = rotate_own_key(folder.documents, folder.people, me(), overlap_s)
    else:
        made = folder.people.rotate_key(me(), key_id, overlap_s)
        secret, new_id = made.secret, made.key.id
    _show_secret(new_id, secret)
    console.write(f"The old key is valid for {overlap} more." if overlap_s else "The old key is revoked.")
    return ExitCode.DONE
