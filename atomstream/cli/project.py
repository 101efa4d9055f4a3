"""``atomstream project``: create and list the projects of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from atomstream.cli.console import printable
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.errors import ConflictError
from atomstream.login import resolve_login

if TYPE_CHECKING:
    from atomstream.service.api import ServiceApi

T = TypeVar("T")


@click.group()
def project() -> None:
    """Create and list projects; use the UUID as --project of a stream."""


@project.command()
@click.argument("name")
@connection_options
def create(name: str, endpoint: str | None, api_key: str | None) -> int:
    """Create a project called NAME and print its UUID (atomstream servers only).

    \b
    Example:
      atomstream project create "GaN on Si" --endpoint http://127.0.0.1:8765
    """
    try:
        click.echo(call_service(lambda api: api.create_project(name), endpoint, api_key))
    except ConflictError as error:
        existing = error.detail.get("project_id") if isinstance(error.detail, dict) else None
        raise ConflictError(f"A project called {name!r} exists already: {existing or error}") from None
    return ExitCode.DONE


@project.command(name="list")
@connection_options
def list_all(endpoint: str | None, api_key: str | None) -> int:
    """Print UUID and name of every project that the API key can see."""
    for listed in call_service(lambda api: api.list_projects(), endpoint, api_key):
        click.echo(f"{listed.id}  {printable(listed.name)}")
    return ExitCode.DONE


def call_service(
    request: Callable[[ServiceApi], Awaitable[T]], endpoint: str | None, api_key: str | None
) -> T:
    """The result of ``request(api)`` with the server and key of the command line or the environment."""
    login = resolve_login(api_key, endpoint)
    return asyncio.run(_request(request, login.endpoint, login.api_key))


async def _request(request: Callable[[ServiceApi], Awaitable[T]], endpoint: str, key: str) -> T:
    from atomstream.service.api import ServiceApi

    service = ServiceApi(endpoint, key, request_timeout_s=30.0, upload_timeout_s=30.0, connections=1)
    try:
        return await request(service)
    finally:
        await service.close()
