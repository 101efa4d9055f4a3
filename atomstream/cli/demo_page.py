"""The page of ``atomstream demo --open``: opened in a browser by a link that logs in once, and kept until Ctrl-C."""

from __future__ import annotations

import json
import threading
import urllib.request
import webbrowser
from contextlib import suppress
from typing import Final

from atomstream.cli.console import console
from atomstream.cli.embedded import EmbeddedServer
from atomstream.errors import ConfigError
from atomstream.protocol import API_KEY_HEADER

REPLY_S: Final = 20.0


def open_page(server: EmbeddedServer, data_id: str) -> None:
    """Open the page of a stream in the user's browser, logged in. If there is none, print its address."""
    link = _login_link(server, data_id)
    try:
        opened = webbrowser.open(link)
    except webbrowser.Error:
        opened = False
    if not opened:
        console.write(f"No browser could be started. Open this address, which logs in once: {link}")


def keep_open(server: EmbeddedServer, data_id: str) -> None:
    """Keep the server until Ctrl-C."""
    console.write(
        f"The page stays open until Ctrl-C: {server.url}/streams/{data_id}\n"
        "To open it again, use this address in the same browser. In another one, log in with the API key "
        f"{server.api_key}"
    )
    ended = threading.Event()
    with suppress(KeyboardInterrupt):
        while not ended.wait(0.5):  # with a time limit, so that Ctrl-C ends it on Windows too
            pass
    console.write("Stopped.")


def _login_link(server: EmbeddedServer, data_id: str) -> str:
    request = urllib.request.Request(
        f"{server.url}/session/links", method="POST", headers={API_KEY_HEADER: server.api_key}
    )
    # Without a proxy: the server is on this computer.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=REPLY_S) as reply:
            path = str(json.load(reply)["path"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"The server at {server.url} gave no login link: {error}.") from None
    page, _, token = path.partition("#")
    return f"{server.url}{page}?next=/streams/{data_id}#{token}"
