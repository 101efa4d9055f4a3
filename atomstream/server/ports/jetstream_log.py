"""The logs of subjects in JetStream: shared by all processes of a cluster."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.errors import APIError

from atomstream.server.ports.bus import ANSWER_S, Bus
from atomstream.server.ports.stream_log import BusUnavailableError, LogEntry, OutdatedWriterError

_WRONG_LAST: Final = 10071
"""JetStream's code: the last sequence number of the subject is another one."""
_NO_MESSAGE: Final = 10037
_RETRY_S: Final = 0.3
_SILENT_S: Final = 10.0
"""Time in s without a message after which a reader queries the log, in case a message was lost."""
_WAITING: Final = 4096
"""Messages that wait for one reader; of more, the reader reads the rest from the log."""


class JetStreamLog:
    """See :class:`~atomstream.server.ports.stream_log.StreamLog`; ``part`` is ``results`` or ``inputs``."""

    def __init__(self, bus: Bus, part: str) -> None:
        self._bus = bus
        self._part = part
        self._stream = bus.stream(part)

    def _subject(self, subject: str) -> str:
        return f"{self._bus.name}.{self._part}.{subject}"

    async def last(self, subject: str) -> LogEntry | None:
        """The newest entry; None if there is none. Raises BusUnavailableError."""
        body = json.dumps({"last_by_subj": self._subject(subject)}).encode()
        request = self._bus.client.request(f"$JS.API.STREAM.MSG.GET.{self._stream}", body, timeout=ANSWER_S)
        answer = json.loads((await self._bus.answered(request)).data)
        error = answer.get("error")
        if error is not None:
            if error.get("err_code") == _NO_MESSAGE:
                return None
            raise BusUnavailableError(f"JetStream can't read {subject}: {error.get('description')}")
        message = answer["message"]
        return LogEntry(message["seq"], base64.b64decode(message.get("data") or ""))

    async def append(self, subject: str, payload: bytes, *, after: int | None, key: str = "") -> int:
        """Store an entry; returns its number. Raises OutdatedWriterError, BusUnavailableError."""
        headers = {"Nats-Msg-Id": f"{subject}/{key or uuid.uuid4().hex}"}
        if after is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
        publish = self._bus.jetstream.publish(self._subject(subject), payload, headers=headers)
        try:
            return int((await self._bus.answered(publish)).seq)
        except APIError as error:
            if error.err_code != _WRONG_LAST:
                raise BusUnavailableError(f"JetStream did not store an entry: {error.description}") from None
        if key:  # an earlier try may have been stored, and its answer lost
            last = await self.last(subject)
            if last is not None and last.payload == payload:
                return last.number
        raise OutdatedWriterError(f"Another process has appended to {subject}: nothing was stored.")

    async def read(self, subject: str, after: int, limit: int = 256) -> list[LogEntry]:
        """Up to ``limit`` entries above ``after``, in order. Raises BusUnavailableError."""
        client, inbox = self._bus.client, self._bus.client.new_inbox()
        body = {
            "seq": after + 1,
            "next_by_subj": self._subject(subject),
            "batch": limit,
            "max_bytes": 4 << 20,
        }
        found: list[LogEntry] = []
        subscription: Subscription = await self._bus.answered(client.subscribe(inbox))
        try:
            request = client.publish(
                f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(body).encode(), reply=inbox
            )
            await self._bus.answered(request)
            while True:
                message: Msg = await self._bus.answered(subscription.next_msg(timeout=ANSWER_S))
                headers = message.headers or {}
                status = headers.get("Status")
                if status in ("204", "404"):  # the end of the batch; nothing there
                    return found
                if status is not None:
                    raise BusUnavailableError(
                        f"JetStream can't read {subject}: {headers.get('Description', status)}"
                    )
                found.append(LogEntry(int(headers["Nats-Sequence"]), message.data))
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def follow(self, subject: str, after: int) -> AsyncGenerator[LogEntry, None]:
        """All entries above ``after``, then each new one; waits while the bus is unreachable."""
        waiting = _Waiting()
        subscription = await self._subscribe(subject, waiting)
        stop_listening = self._bus.when_reconnected(waiting.note_gap)
        try:
            while True:
                async for entry in self._catch_up(subject, after, waiting):
                    after = entry.number
                    yield entry
                while (message := await waiting.next()) is not None:
                    headers: dict[str, Any] = message.headers or {}
                    number, before = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
                    if number <= after:
                        continue
                    if before > after:
                        break  # one was missed
                    after = number
                    yield LogEntry(number, message.data)
        finally:
            stop_listening()
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def _subscribe(self, subject: str, waiting: _Waiting) -> Subscription:
        stored = f"{self._bus.name}.stored.{self._part}.{subject}"
        while True:
            with suppress(BusUnavailableError):
                made: Subscription = await self._bus.answered(
                    self._bus.client.subscribe(stored, cb=waiting.add)
                )
                return made
            await asyncio.sleep(_RETRY_S)

    async def _catch_up(self, subject: str, after: int, waiting: _Waiting) -> AsyncGenerator[LogEntry, None]:
        while True:
            waiting.gap = False
            try:
                entries = await self.read(subject, after)
            except BusUnavailableError:
                await asyncio.sleep(_RETRY_S)
                continue
            for entry in entries:
                after = entry.number
                yield entry
            if not entries and not waiting.gap:
                return

    async def delete(self, subject: str) -> None:
        """Remove all entries of a subject. Raises BusUnavailableError."""
        await self._bus.api(f"STREAM.PURGE.{self._stream}", {"filter": self._subject(subject)})


class _Waiting:
    """The messages of a subscription that one reader has not taken yet."""

    def __init__(self) -> None:
        self.gap = False
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()

    async def add(self, message: Msg) -> None:
        """The subscription's callback."""
        if self._queue.qsize() < _WAITING:
            self._queue.put_nowait(message)
        else:
            self.gap = True

    def note_gap(self) -> None:
        """Messages may have been missed."""
        self.gap = True
        self._queue.put_nowait(None)

    async def next(self) -> Msg | None:
        """The next message; None if the log has to be read."""
        if self.gap and self._queue.empty():
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(_SILENT_S):
                return await self._queue.get()
        return None
