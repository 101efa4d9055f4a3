"""Webhooks: messages about alarms to the addresses that the administrator has configured, and to no others.

An address is often a secret by itself (Slack, Teams, Mattermost). Logs name its host only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger, hide

log = get_logger("atomstream.server")

MAX_ADDRESSES: Final = 8
MAX_WAITING: Final = 100
"""Messages that wait for one address; with more the oldest is dropped."""
TRY_S: Final = 10.0
"""Longest duration of one try in s."""
WAITS_S: Final = (1.0, 5.0, 25.0, 120.0)
"""Waits before the second try and the later ones; then the message is dropped."""
MAX_FILE_BYTES: Final = 16384


def read_addresses(path: Path) -> tuple[str, ...]:
    """The addresses in a file, one on each line; blank lines and those that begin with # are left out.

    Raises:
        ConfigError: the file can't be read, or a line is not an address. The message does not contain the line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The file of webhooks, {path}, can't be read: {error.strerror}.") from None
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"The file of webhooks, {path}, is longer than {MAX_FILE_BYTES} bytes.")
    lines = [line.strip() for line in text.decode("utf-8-sig", "replace").splitlines()]
    kept = tuple(line for line in lines if line and not line.startswith("#"))
    try:
        return checked_addresses(kept)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def checked_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses. Raises ConfigError for one that is not http or https, by its number."""
    if len(addresses) > MAX_ADDRESSES:
        raise ConfigError(f"webhooks: {len(addresses)} addresses; there may be {MAX_ADDRESSES}.")
    for number, address in enumerate(addresses, 1):
        try:
            parts = urlsplit(address)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or not address.isascii() or any(sign.isspace() for sign in address):
            raise ConfigError(f"webhooks: address {number} is not an http or https address.")
    return tuple(addresses)


class Webhooks:
    """Sends messages in the background, each to all addresses. Used in the server's loop; no method blocks or raises.

    Each address has its own queue, so that one that does not answer delays no other. A redirect is not followed: it
    would lead to an address that nobody has configured.
    """

    def __init__(self, addresses: Sequence[str], waits_s: Sequence[float] = WAITS_S) -> None:
        self._addresses = checked_addresses(addresses)
        self._waits_s = waits_s
        self._queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        for address in self._addresses:
            hide(address)

    def __len__(self) -> int:
        return len(self._addresses)

    def send(self, message: dict[str, Any]) -> None:
        """Send ``message`` as JSON to each address."""
        for address in self._addresses:
            queue = self._queues.get(address)
            if queue is None:
                queue = self._queues[address] = asyncio.Queue(MAX_WAITING)
                self._tasks.append(asyncio.create_task(self._work(address, queue), name="atomstream webhook"))
            if queue.full():
                queue.get_nowait()
                queue.task_done()
                log.warning(
                    "a message about an alarm to %s was dropped: %d messages are waiting already",
                    _host(address),
                    MAX_WAITING,
                )
            queue.put_nowait(message)

    async def sent(self) -> None:
        """Return when no message waits any more."""
        for queue in self._queues.values():
            await queue.join()

    async def close(self) -> None:
        """Stop; messages that were not sent are dropped."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _work(self, address: str, queue: asyncio.Queue[dict[str, Any]]) -> None:
        timeout = aiohttp.ClientTimeout(total=TRY_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            while True:
                message = await queue.get()
                try:
                    await self._deliver(session, address, message)
                except Exception as error:  # no message may end the sending of the later ones
                    log.warning(
                        "a message about an alarm was not sent to %s: %s",
                        _host(address),
                        type(error).__name__,
                    )
                finally:
                    queue.task_done()

    async def _deliver(self, session: aiohttp.ClientSession, address: str, message: dict[str, Any]) -> None:
        for wait_s in (*self._waits_s, None):
            problem, again = await _try(session, address, message)
            if not problem:
                return
            if not again or wait_s is None:
                log.warning("a message about an alarm was not sent to %s: %s", _host(address), problem)
                return
            await asyncio.sleep(wait_s)


async def _try(session: aiohttp.ClientSession, address: str, message: dict[str, Any]) -> tuple[str, bool]:
    """What went wrong ("": nothing), and whether to try again."""
    try:
        async with session.post(address, json=message, allow_redirects=False) as reply:
            if reply.status < 300:
                return "", False
            return f"it answered {reply.status}", reply.status >= 500 or reply.status in (408, 429)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return type(error).__name__, True  # its text has the address


def _host(address: str) -> str:
    return urlsplit(address).hostname or "?"
