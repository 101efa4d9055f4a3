"""Placement by JetStream: a work queue of notices, with a pinned consumer for each partition.

The NATS server delivers the notices of a partition to one process only, the one that it has pinned. A pin ends when
its process has not pulled for ``pin_s``. So a pull of each owned partition is always waiting, also while the process
analyses. A process owns at most its share of the partitions, and releases those above it.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import APIError

from atomstream.server.disk_errors import log_failure
from atomstream.server.ports.bus import Bus
from atomstream.server.ports.placement import PARTITIONS, Handler, Lost, Notice, partition_of
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
_GROUP: Final = "analysts"
_BATCH: Final = 64
_MOST_WAITING: Final = 1000
"""Notices of a partition that are not done. Of more, the rest waits in the queue."""
_BEAT_S: Final = 1.0
_IDLE_PULL_S: Final = 5.0
_RETRY_S: Final = 0.5
_decode: Final = msgspec.msgpack.Decoder(Notice)


class JetStreamPlacement:
    """See :class:`~atomstream.server.ports.placement.Placement`. ``pin_s`` is equal in all processes of a cluster."""

    def __init__(self, bus: Bus, pin_s: float = 3.0) -> None:
        self._bus = bus
        self._pin_s = pin_s
        self._node = uuid.uuid4().hex
        self._stream = bus.stream("notices")
        self._seen: dict[str, float] = {}
        self._partitions = [_Partition(self, number) for number in range(PARTITIONS)]
        self._room = asyncio.Event()

    async def announce(self, notice: Notice) -> None:
        """Add a notice to the queue. Raises BusUnavailableError."""
        subject = f"{self._bus.name}.notices.{partition_of(notice.data_id)}.{notice.data_id}"
        try:
            await self._bus.answered(self._bus.jetstream.publish(subject, msgspec.msgpack.encode(notice)))
        except APIError as error:
            raise BusUnavailableError(f"JetStream did not store a notice: {error.description}") from None

    def listen(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """Call ``listener`` for each notice that is announced from now on."""

        async def got(message: Msg) -> None:
            with suppress(msgspec.MsgspecError):
                listener(_decode.decode(message.data))

        async def listen() -> None:
            with suppress(nats.errors.Error, OSError):
                subscription = await self._bus.client.subscribe(f"{self._bus.name}.notices.>", cb=got)
                try:
                    await ended.wait()
                finally:
                    await subscription.unsubscribe()

        ended = asyncio.Event()
        self._bus.hold(asyncio.create_task(listen(), name="atomstream notices"))
        return ended.set

    @property
    def owned(self) -> list[int]:
        """The partitions of this process at present."""
        return [partition.number for partition in self._partitions if partition.pin is not None]

    async def work(self, handler: Handler, lost: Lost) -> None:
        """Own partitions until this is cancelled; then they are free for others at once."""
        await self._make_consumers()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_share(), name="atomstream share of the analysis")
            for partition in self._partitions:
                tasks.create_task(
                    partition.run(handler, lost), name=f"atomstream partition {partition.number}"
                )

    async def _make_consumers(self) -> None:
        for number in range(PARTITIONS):
            config = {
                "durable_name": f"p{number}",
                "filter_subject": f"{self._bus.name}.notices.{number}.>",
                "ack_policy": "explicit",
                "ack_wait": int((self._pin_s + 1.0) * 1e9),
                "max_ack_pending": _MOST_WAITING,
                "priority_groups": [_GROUP],
                "priority_policy": "pinned_client",
                "priority_timeout": int(self._pin_s * 1e9),
            }
            body = {"stream_name": self._stream, "config": config}
            while True:
                try:
                    await self._bus.api(f"CONSUMER.DURABLE.CREATE.{self._stream}.p{number}", body)
                    break
                except BusUnavailableError as error:
                    log.warning("%s", error)
                    await asyncio.sleep(_RETRY_S)

    # -- the share of this process -----------------------------------------------------------------------

    @property
    def share(self) -> int:
        """The most partitions that this process keeps: all partitions divided by the number of running processes."""
        since = time.monotonic() - 3 * _BEAT_S
        self._seen = {node: at for node, at in self._seen.items() if at >= since}
        return -(-PARTITIONS // len(self._seen.keys() | {self._node}))

    def has_room(self) -> bool:
        """Whether this process takes another partition."""
        return len(self.owned) < self.share

    async def room(self) -> None:
        """Wait some time for room; returns at the next beat."""
        await self._room.wait()

    async def _keep_share(self) -> None:
        subject = f"{self._bus.name}.analysts"

        async def seen(message: Msg) -> None:
            self._seen[message.data.decode()] = time.monotonic()

        subscription = None
        try:
            while True:
                with suppress(nats.errors.Error, OSError):
                    subscription = subscription or await self._bus.client.subscribe(subject, cb=seen)
                    await self._bus.client.publish(subject, self._node.encode())
                self._room.set()
                self._room = asyncio.Event()
                if len(self.owned) > self.share:
                    self._partitions[
                        min(self.owned, key=lambda number: self._partitions[number].used_at)
                    ].hand_back()
                await asyncio.sleep(_BEAT_S)
        finally:
            self._room.set()
            if subscription is not None:
                with suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()


class _Partition:
    """The pulls of one partition, and its notices that are being handled."""

    def __init__(self, placement: JetStreamPlacement, number: int) -> None:
        self.number = number
        self.pin: str | None = None
        """What the server calls this process' ownership; None if another process owns the partition, or none does."""
        self.used_at = 0.0
        self._placement = placement
        self._bus = placement._bus
        self._consumer = f"{placement._stream}.p{number}"
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._running: dict[asyncio.Task[None], Msg] = {}
        self._returning = False

    def hand_back(self) -> None:
        """Release the partition for another process."""
        self._returning = True
        self._arrived.put_nowait(None)

    async def run(self, handler: Handler, lost: Lost) -> None:
        """Pull and handle notices until this is cancelled."""
        inbox = self._bus.client.new_inbox()
        subscription = await self._bus.client.subscribe(inbox, cb=self._arrived.put)
        keeping = asyncio.create_task(self._keep_alive(), name=f"atomstream partition {self.number} beats")
        try:
            while True:
                if self._returning:
                    await self._return(lost)
                if self.pin is None and not self._placement.has_room():
                    await self._placement.room()
                    continue
                await self._pull(inbox, handler, lost)
        finally:
            keeping.cancel()
            await self._cancel_running()
            with suppress(nats.errors.Error, OSError, BusUnavailableError):
                if self.pin is not None:
                    self.pin = None
                    await self._unpin()
                await subscription.unsubscribe()

    async def _pull(self, inbox: str, handler: Handler, lost: Lost) -> None:
        """One pull: up to ``_BATCH`` notices, until it expires."""
        expires_s = self._placement._pin_s / 3 if self.pin else _IDLE_PULL_S
        request: dict[str, Any] = {"batch": _BATCH, "expires": int(expires_s * 1e9), "group": _GROUP}
        if self.pin:
            request["id"] = self.pin
        with suppress(nats.errors.Error, OSError):
            path = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer}"
            await self._bus.client.publish(path, json.dumps(request).encode(), reply=inbox)
        loop = asyncio.get_running_loop()
        until, taken = loop.time() + expires_s + 0.5, 0
        while taken < _BATCH and not self._returning:
            try:
                async with asyncio.timeout_at(until):
                    message = await self._arrived.get()
            except TimeoutError:
                return
            if message is None:
                return
            headers = message.headers or {}
            status = headers.get("Status")
            if status is None:
                taken += 1
                self._receive(message, handler)
                if self.pin is not None and expires_s == _IDLE_PULL_S:
                    return  # the next pull sends the pin and expires sooner
            elif status == "423":  # another process is pinned
                if self.pin is not None:
                    await self._drop(lost)
                return
            elif status != "100":
                return

    def _receive(self, message: Msg, handler: Handler) -> None:
        headers = message.headers or {}
        if headers.get("Nats-Pin-Id"):
            if self.pin is None:
                log.info("partition %d: its streams are analysed here", self.number)
            self.pin = headers["Nats-Pin-Id"]
        self.used_at = time.monotonic()
        try:
            notice = _decode.decode(message.data)
        except msgspec.MsgspecError:
            log.error("a notice of another program or version is ignored")
            self._answer(message, b"+TERM")
            return
        task = asyncio.create_task(
            self._handle(handler, notice, message), name=f"notice about {notice.data_id}"
        )
        self._running[task] = message
        task.add_done_callback(lambda task: self._running.pop(task, None))

    async def _handle(self, handler: Handler, notice: Notice, message: Msg) -> None:
        try:
            await handler(notice)
        except Exception as error:
            log_failure(log, error, "stream %s: a notice is delivered again", notice.data_id)
            self._answer(message, b'-NAK {"delay": %d}' % int(_RETRY_S * 1e9))
        else:
            self._answer(message, b"+ACK")

    def _answer(self, message: Msg, answer: bytes) -> None:
        async def send() -> None:
            with suppress(nats.errors.Error, OSError):
                await self._bus.client.publish(message.reply, answer)

        task = asyncio.create_task(send(), name="atomstream answer to a notice")
        self._bus.hold(task)

    async def _keep_alive(self) -> None:
        """Prolong the time of all notices that are being handled."""
        while True:
            await asyncio.sleep(self._placement._pin_s / 3)
            for message in tuple(self._running.values()):
                self._answer(message, b"+WPI")

    async def _drop(self, lost: Lost) -> None:
        """The pin is another process'."""
        self.pin = None
        log.info("partition %d: its streams are analysed elsewhere", self.number)
        await self._cancel_running()
        try:
            await lost(self.number)
        except Exception as error:
            log_failure(log, error, "partition %d: its streams could not be closed", self.number)

    async def _return(self, lost: Lost) -> None:
        self._returning = False
        if self.pin is None:
            return
        await self._drop(lost)
        with suppress(BusUnavailableError):
            await self._unpin()
        await asyncio.sleep(self._placement._pin_s)  # another process takes it meanwhile

    async def _unpin(self) -> None:
        """Free the partition at once; otherwise the server waits ``pin_s`` for the next pull."""
        await self._bus.api(f"CONSUMER.UNPIN.{self._consumer}", {"group": _GROUP})

    async def _cancel_running(self) -> None:
        running = dict(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for message in running.values():
            self._answer(message, b"-NAK")
