"""The connection of one process to NATS with JetStream, and the names of what atomstream keeps there.

There are three streams of JetStream: notices about chunks (a work queue, by partition), results, and inputs of users
(both logs by subject, which are republished once stored, so that readers need no consumer).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.js.client import JetStreamContext
from nats.js.errors import APIError

from atomstream.errors import ConfigError
from atomstream.server.ports.bus_address import BusAddress
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

CONNECT_S: Final = 10.0
"""Longest time for the first connection."""
ANSWER_S: Final = 5.0
"""Time for an answer of the bus."""
PING_S: Final = 2
"""Time between two pings in s."""
UNANSWERED: Final = 2
"""Number of pings without an answer after which the connection counts as lost. Without this, the connection to a frozen
server would stay open."""
_DUPLICATES_S: Final = 120
_PARTS: Final = ("results", "inputs", "notices")
OWNER: Final = "atomstream_cluster"
"""In the metadata of the streams: the id of the cluster that they belong to."""
_ALREADY_THERE: Final = frozenset({10058, 10148})
"""Codes of JetStream: a stream, or a consumer, of this name exists with another configuration."""

Reconnected = Callable[[], None]


def check_owner(name: str, owner: str | None, cluster: str) -> None:
    """Raises ConfigError if the streams of that name belong to another cluster than the store (``cluster``)."""
    if owner is not None and owner != cluster:
        raise ConfigError(
            f"The streams named {name!r} on this NATS belong to the cluster {owner}, and the store to {cluster}. Give "
            "each cluster its own name in the URL of --bus, such as ?name=lab-a. Nothing was changed."
        )


class JetStreamRefusedError(BusUnavailableError):
    """JetStream answered a request with an error."""


class Bus:
    """A connection that reconnects for as long as it is open; made by :meth:`connect`.

    ``name`` separates several clusters on one NATS: all subjects and streams begin with it.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.jetstream: JetStreamContext = client.jetstream(timeout=ANSWER_S)
        self._listeners: set[Reconnected] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._replicas = 1
        self._last_error = ""

    @classmethod
    async def open(cls, address: BusAddress) -> Bus:
        """Connect to the servers at ``address``; see :meth:`connect`."""
        return await cls.connect(address.text, address.name, replicas=address.replicas, **address.arguments())

    @classmethod
    async def connect(cls, url: str, name: str = "atomstream", *, replicas: int = 1, **options: Any) -> Bus:
        """Connect, and make the streams of JetStream where they are missing.

        Args:
            url: ``nats://[user:password@]host:port``, several with commas between them.
            name: that of the cluster.
            replicas: on how many servers of NATS each message is stored, if the streams are made now.
            options: further arguments of :func:`nats.connect`, such as ``tls`` and ``user_credentials``.

        Raises:
            ConfigError: there is no NATS server at ``url``, it refuses, or it has no JetStream.
        """
        client = Client()
        bus = cls(client, name)
        try:
            async with asyncio.timeout(CONNECT_S):  # the library itself tries for ever
                await client.connect(
                    url.split(","),
                    max_reconnect_attempts=-1,
                    connect_timeout=2,
                    allow_reconnect=True,
                    error_cb=bus._note_error,
                    disconnected_cb=bus._disconnected,
                    reconnected_cb=bus._reconnected,
                    max_outstanding_pings=UNANSWERED,
                    flush_timeout=ANSWER_S,
                    **{"reconnect_time_wait": 0.2, "ping_interval": PING_S, **options},
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            with suppress(Exception):
                await client.close()
            raise ConfigError(
                f"No connection to NATS at {_hidden(url)}: {bus._last_error or str(error) or type(error).__name__}"
            ) from None
        try:
            await bus._make_streams(replicas)
        except BaseException:
            await client.close()
            raise
        return bus

    async def _make_streams(self, replicas: int) -> None:
        self._replicas = replicas
        logs = {"storage": "file", "allow_direct": True, "duplicate_window": _DUPLICATES_S * 10**9}
        for part in ("results", "inputs"):
            stored = {"src": f"{self.name}.{part}.>", "dest": f"{self.name}.stored.{part}.>"}
            await self._make(part, {**logs, "subjects": [stored["src"]], "republish": stored})
        await self._make(
            "notices", {**logs, "subjects": [f"{self.name}.notices.>"], "retention": "workqueue"}
        )

    async def _make(self, part: str, config: dict[str, Any]) -> None:
        stream = self.stream(part)
        try:
            await self.api(
                f"STREAM.CREATE.{stream}", {"name": stream, "num_replicas": self._replicas, **config}
            )
        except JetStreamRefusedError as error:
            raise ConfigError(
                f"{error}. Messages are to be stored on {self._replicas} servers of NATS, which must form a cluster "
                "(replicas in the URL of --bus)."
            ) from None
        except BusUnavailableError:
            raise ConfigError(
                "The NATS server has no JetStream: set jetstream in its configuration (or start it with -js)."
            ) from None

    async def join(self, cluster: str) -> None:
        """Note at the streams that they belong to the cluster with this id.

        Raises:
            ConfigError: they belong to another cluster; nothing was changed.
            BusUnavailableError: JetStream does not answer.
        """
        for part in _PARTS:
            config = (await self.api(f"STREAM.INFO.{self.stream(part)}", {}))["config"]
            owner = config.setdefault("metadata", {}).get(OWNER)
            if owner is None:
                config["metadata"][OWNER] = cluster
                await self.api(f"STREAM.UPDATE.{self.stream(part)}", config)
            else:
                check_owner(self.name, owner, cluster)

    def stream(self, part: str) -> str:
        """Name of the JetStream stream ``part``: ``results``, ``inputs`` or ``notices``."""
        return f"{self.name}-{part}".replace(".", "_")

    async def api(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request to JetStream's API; what exists already is not an error.

        Raises:
            BusUnavailableError: no answer, or an error of JetStream.
        """
        request = self.client.request(f"$JS.API.{path}", json.dumps(body).encode(), timeout=ANSWER_S)
        answer: dict[str, Any] = json.loads((await self.answered(request)).data)
        error = answer.get("error")
        if error is not None and error.get("err_code") not in _ALREADY_THERE:
            raise JetStreamRefusedError(f"JetStream refused {path}: {error.get('description')}")
        return answer

    async def answered(self, request: Awaitable[Any]) -> Any:
        """The answer to a request; any failure of the connection becomes BusUnavailableError.

        Raises:
            nats.js.errors.APIError: JetStream refused the request.
        """
        try:
            return await request
        except APIError:
            raise
        except (TimeoutError, OSError, nats.errors.Error) as error:
            raise BusUnavailableError(
                f"The message bus (NATS) does not answer: {str(error) or type(error).__name__}"
            ) from None

    def when_reconnected(self, listener: Reconnected) -> Callable[[], None]:
        """Call ``listener`` after each reconnection, when messages may have been missed. Returns its end."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def hold(self, task: asyncio.Task[None]) -> None:
        """Keep a reference to a short task, so that it is not collected; :meth:`close` waits for it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnected(self) -> None:
        log.warning("the message bus (NATS) is connected again")
        for listener in tuple(self._listeners):
            listener()

    async def _disconnected(self) -> None:
        if not self.client.is_closed:
            log.warning("the message bus (NATS) is not connected; it is tried again until it answers")

    async def close(self) -> None:
        """Close the connection, after what is being sent."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=0.5)
        for task in tuple(self._tasks):
            task.cancel()
        with suppress(nats.errors.Error, TimeoutError, OSError):
            await self.client.close()

    async def _note_error(self, error: Exception) -> None:
        """Note an error of the connection; each waiting request reports its own error."""
        self._last_error = str(error) or type(error).__name__


def _hidden(url: str) -> str:
    """The addresses without user and password."""
    return ",".join(
        one.rpartition("@")[2].removeprefix("nats://").removeprefix("tls://") for one in url.split(",")
    )
