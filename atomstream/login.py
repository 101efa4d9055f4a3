"""Which server a client uses, and with which key: arguments, environment, or what ``atomstream login`` saved.

A key is a secret of one server. So a saved key is only sent to the server that it was saved for, and a key from the
environment is sent nowhere without an endpoint.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from atomstream.checks import checked_text
from atomstream.config import (
    HOSTED_ENDPOINT,
    checked_api_key,
    environment_api_key,
    explicit_endpoint,
    home_expanded,
    normalise_endpoint,
)
from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """The normalised address of a server, and an API key of it."""

    endpoint: str
    api_key: str


NO_SERVER: Final = ServerLogin("http://127.0.0.1:1", "no-key")
"""The server of recordings that belong to none yet. Nothing listens on TCP port 1 of this computer, and names are not
resolved, so nothing can be sent. ``Spool.adopt`` gives these streams to a real server."""


def login_file() -> Path:
    """The file of ``atomstream login``: ``$ATOMSTREAM_LOGIN_FILE``, else one in the user's configuration folder."""
    chosen = os.environ.get("ATOMSTREAM_LOGIN_FILE")
    if chosen:
        return home_expanded(chosen).absolute()
    from platformdirs import user_config_path  # only needed where no endpoint or key is given

    return user_config_path("atomstream", appauthor=False) / "login.json"


def saved_login() -> ServerLogin | None:
    """What ``atomstream login`` saved; None if nothing is.

    Raises:
        ConfigError: the file can't be read, or is damaged.
    """
    path = login_file()
    try:
        fields = json.loads(path.read_bytes())
        return ServerLogin(normalise_endpoint(fields["endpoint"]), checked_api_key(fields["api_key"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"The saved login {path} can't be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"The saved login {path} is damaged. Run `atomstream login` again, or `atomstream logout`."
        ) from None


def save_login(login: ServerLogin) -> Path:
    """Save endpoint and key, readable by this user only; returns the file.

    Raises:
        ConfigError: the file can't be written.
    """
    from atomstream.system.files import (
        LOCAL,
        write_private,
    )  # it imports numpy, and most commands do not save

    path = login_file()
    try:
        LOCAL.make_folder(path.parent)
        write_private(path, json.dumps(asdict(login), indent=2).encode())
    except OSError as error:
        raise ConfigError(f"The login can't be saved in {path}: {error.strerror}.") from None
    return path


def remove_login() -> bool:
    """Remove the saved login; False if there was none.

    Raises:
        ConfigError: the file can't be removed.
    """
    path = login_file()
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"The saved login {path} can't be removed: {error.strerror}.") from None
    return True


def resolve_login(api_key: str | None, endpoint: str | None) -> ServerLogin:
    """The server and the key of a client.

    The endpoint is the argument, else ``$ATOMSTREAM_ENDPOINT``, else the saved one. The key is the argument, else that
    of the environment, else the saved one if it was saved for this endpoint. Only a key that is passed as an argument
    and is not one of an atomstream server goes to the hosted service without an endpoint, as that service documents.

    Raises:
        ConfigError: an invalid endpoint or key, or one that is missing. Nothing was sent anywhere.
        TypeError: one of them is not a string.
    """
    for name, value in (("api_key", api_key), ("endpoint", endpoint)):
        if value is not None:
            checked_text(name, value)
    address = explicit_endpoint(endpoint)
    given = (api_key or "").strip()
    key = given or environment_api_key() or ""
    saved = None if address and key else saved_login()
    if address is None and saved is not None:
        address = saved.endpoint
    if not key and saved is not None and saved.endpoint == address:
        key = saved.api_key
    if not key:
        where = f" for {address}" if address else ""
        raise ConfigError(
            f"No API key{where}: run `atomstream login` once, or pass api_key='...', or set ATOMSTREAM_API_KEY. "
            "(An atomstream server prints one at its first start.)"
        )
    key = checked_api_key(key)
    if address is None and given and not given.startswith(SERVER_KEY_PREFIX):
        address = HOSTED_ENDPOINT
    if address is None:
        raise ConfigError(
            "There is an API key, but no endpoint: it is unknown which server the key is for. Run `atomstream login` "
            "once, or "
            f"pass endpoint='http://HOST:8765', or set ATOMSTREAM_ENDPOINT ({HOSTED_ENDPOINT} is the hosted service). "
            "Nothing was sent anywhere."
        )
    return ServerLogin(address, key)
