"""Alarms: rules on numbers, raised once and sent once, and webhooks that go to configured addresses only."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.alarms import watch as watch_module
from atomstream.server.alarms.rules import AlarmRule, check_rules, why_met
from atomstream.server.alarms.watch import AlarmWatch
from atomstream.server.alarms.webhooks import MAX_WAITING, Webhooks, checked_addresses, read_addresses
from atomstream.server.documents import FolderDocuments
from atomstream.server.live import manager
from atomstream.server.live.messages import MeasurementRecord
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

RATE = "growth_rate_ml_s"


def values(rate: float | None, why: str = "") -> dict[str, MeasurementRecord]:
    """The newest values of a stream with this growth rate."""
    return {RATE: MeasurementRecord(rate, 0.01, "ML/s", why, "")}


@pytest.mark.parametrize(
    ("rule", "rate", "age_s", "wanted"),
    [
        ({"low": 0.3, "high": 0.5}, 0.4, 1.0, ""),
        ({"low": 0.3, "high": 0.5}, 0.29, 1.0, "is 0.29 ML/s, below 0.3"),
        ({"low": 0.3, "high": 0.5}, 0.51, 1.0, "is 0.51 ML/s, above 0.5"),
        ({"high": 0.5}, None, 1.0, ""),
        ({"undetermined": True}, None, 1.0, "is undetermined: too noisy"),
        ({"undetermined": True}, 0.4, 1e6, ""),
        ({"stale_s": 30.0}, 0.4, 29.9, ""),
        ({"stale_s": 30.0}, 0.4, 42.7, "is stale: no new results for 42 s"),
    ],
)
def test_when_a_rule_is_met(rule: dict[str, Any], rate: float | None, age_s: float, wanted: str) -> None:
    """A number outside of its band, without a value, or old; a number that the stream does not have meets no rule."""
    made = AlarmRule(name=RATE, **rule)
    assert why_met(made, values(rate, "too noisy"), age_s) == wanted
    assert why_met(made, {}, 0.0) == ""


@pytest.mark.parametrize(
    "rules",
    [
        [{}],
        [{"low": 2.0, "high": 1.0}],
        [{"low": 1.0}, {"high": 2.0}],
        [{"name": "rate\n2026-01-01 ERROR the server is on fire", "stale_s": 1.0}],
        [{"name": "<!channel> see http://evil.example", "stale_s": 1.0}],
    ],
    ids=["no condition", "empty band", "twice", "a line of the log", "a message of a chat"],
)
def test_rules_that_make_no_sense(rules: list[dict[str, Any]]) -> None:
    """Rules that can never be met are refused with the reason."""
    with pytest.raises(ConfigError, match="alarms"):
        check_rules([AlarmRule(**{"name": RATE, **rule}) for rule in rules])


class Hook:
    """A server that receives webhooks and answers with these statuses, the last one again and again."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[str, Any]] = []
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append((request.path, await request.json()))
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The address of the running hook, with a secret in the path."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # aiohttp has no public way
        yield f"http://127.0.0.1:{port}/hook/SECRET-TOKEN-1234567890"
        await runner.cleanup()


@asynccontextmanager
async def sending(*addresses: str, waits_s: tuple[float, ...] = (0.0, 0.0)) -> AsyncIterator[Webhooks]:
    """Webhooks without waits between the tries."""
    hooks = Webhooks(addresses, waits_s)
    try:
        yield hooks
    finally:
        await hooks.close()


@pytest.mark.parametrize(
    ("statuses", "tries"),
    [((200,), 1), ((500, 429, 200), 3), ((500,), 3), ((404,), 1), ((302,), 1)],
    ids=["works", "works later", "never works", "refused", "redirect"],
)
async def test_a_webhook(statuses: tuple[int, ...], tries: int, caplog: pytest.LogCaptureFixture) -> None:
    """Errors of the other server are tried again, a few times; no redirect is followed; no log has the address."""
    hook = Hook(*statuses)
    with caplog.at_level(logging.DEBUG):
        async with hook.serving() as address, sending(address) as hooks:
            hooks.send({"text": "T"})
            await hooks.sent()
    assert hook.received == [("/hook/SECRET-TOKEN-1234567890", {"text": "T"})] * tries
    assert "SECRET-TOKEN" not in caplog.text
    failed = [
        record.message for record in caplog.records if "was not sent to 127.0.0.1" in record.getMessage()
    ]
    assert bool(failed) == (statuses[-1] != 200)


async def test_webhooks_are_bounded() -> None:
    """While an address hangs, the newest messages wait and the oldest are dropped; another address gets all."""
    slow, quick = Hook(200), Hook(200)
    slow.gate = asyncio.Event()
    async with slow.serving() as first, quick.serving() as second, sending(first, second) as hooks:
        hooks.send({"number": -1})
        await slow.reached.wait()
        for number in range(MAX_WAITING + 20):
            hooks.send({"number": number})
            await asyncio.sleep(0)
        slow.gate.set()
        await hooks.sent()
    numbers = [body["number"] for _, body in slow.received]
    assert numbers == [-1, *range(20, MAX_WAITING + 20)]
    assert quick.received[-1][1] == {"number": MAX_WAITING + 19}


async def test_an_address_that_nobody_listens_at(caplog: pytest.LogCaptureFixture) -> None:
    """The request is repeated, then the message is dropped with a warning that names the host."""
    async with Hook(200).serving() as address:
        pass
    async with sending(address) as hooks:
        hooks.send({"text": "T"})
        await hooks.sent()
    assert "was not sent to 127.0.0.1: ClientConnectorError" in caplog.text
    assert "SECRET-TOKEN" not in caplog.text


def test_the_file_of_addresses(tmp_path: Path) -> None:
    """Comments and blank lines are left out. An error names the file and the number, never the line."""
    path = tmp_path / "hooks"
    path.write_text("# the group's channel\n\nhttps://chat.example/hooks/abc\nhttp://10.0.0.7:8123/api\n")
    assert read_addresses(path) == ("https://chat.example/hooks/abc", "http://10.0.0.7:8123/api")
    for bad in (
        "file:///etc/passwd",
        "chat.example/hooks/abc",
        "https://",
        "https://a b",
        "https://[",
        "gopher://x",
    ):
        path.write_text(f"https://chat.example/x\n{bad}\n")
        with pytest.raises(ConfigError, match="address 2 is not an http or https address") as caught:
            read_addresses(path)
        assert bad not in str(caught.value)
    with pytest.raises(ConfigError, match="can't be read"):
        read_addresses(tmp_path / "missing")
    with pytest.raises(ConfigError, match="there may be 8"):
        checked_addresses(["https://a.example"] * 9)


class Recorder(Webhooks):
    """Keeps the messages."""

    def __init__(self) -> None:
        super().__init__(())
        self.messages: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


class Clock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def test_an_alarm_is_raised_and_sent_once(serve: Serve, tmp_path: Path) -> None:
    """Two servers that share the rules send an alarm once, after a restart too; it ends when its stream ends."""
    server = await serve()
    clock, sent = Clock(), Recorder()

    def watch() -> AlarmWatch:
        context, documents = server.context, FolderDocuments(tmp_path)
        return AlarmWatch(
            documents, context.streams, context.results, sent, "https://lab.example/rheed", clock
        )

    async with WireClient(server) as client:
        data_id = await client.create()
        one, other = watch(), watch()
        await one.set_rules(data_id, [AlarmRule(name=RATE, stale_s=30.0, low=0.1)])
        for _ in range(3):
            await one.check()
        assert sent.messages == []
        clock.now += 45.0
        await one.check()
        assert one.raised(data_id) == []  # a single check raises nothing
        for _ in range(3):
            await one.check()
            await other.check()
        (raised,) = one.raised(data_id)
        assert re.fullmatch(r"is stale: no new results for \d\d s", raised.why)
        assert other.raised(data_id) == [raised]
        again = watch()
        for _ in range(3):
            await again.check()
        (message,) = sent.messages
        assert (message["event"], message["data_id"], message["name"]) == ("alarm.raised", data_id, RATE)
        assert message["page"] == f"https://lab.example/rheed/streams/{data_id}"
        assert message["text"].endswith(f"{RATE} {raised.why}. {message['page']}")
        await client.end(data_id)
        for _ in range(3):
            await one.check()
        assert one.raised(data_id) == []
        assert [message["event"] for message in sent.messages] == ["alarm.raised", "alarm.ended"]
        (tmp_path / "alarms.json").write_text("{")
        for _ in range(3):
            await watch().check()  # a damaged document: no alarms, no failure
        assert len(sent.messages) == 2


async def test_rules_keep_no_stream_open(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rules for more streams than may be open, each is opened once only, and others can be opened."""
    monkeypatch.setattr(manager, "REST_S", 0.0)
    server = await serve(max_open_streams=2)
    context, opened = server.context, Counter[str]()
    make = context.results._make_results

    async def counted(archive: Any, about: Any) -> Any:
        opened[about.data_id] += 1
        return await make(archive, about)

    monkeypatch.setattr(context.results, "_make_results", counted)
    async with WireClient(server) as client:
        watched = [await client.create() for _ in range(4)]
        for data_id in watched:
            await context.alarms.set_rules(data_id, [AlarmRule(name=RATE, stale_s=3600.0)])
        while opened != Counter(watched):
            await context.alarms.check()
        for _ in range(3):
            await context.alarms.check()
        assert opened == Counter(watched)
        other = await client.create()
        assert (await client.ask("GET", f"/rheed/stream/{other}/analysis"))[0] == 200


async def test_rules_of_running_streams_are_not_dropped(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If too many streams have rules, those of ended ones go first; those of a running one stay, and others are
    refused."""
    monkeypatch.setattr(watch_module, "MAX_STREAMS", 2)
    server_rules = [AlarmRule(name=RATE, low=0.1)]
    server = await serve()
    alarms = server.context.alarms
    async with WireClient(server) as client:
        first, second, third = [await client.create() for _ in range(3)]
        for data_id in (first, second):
            await alarms.set_rules(data_id, server_rules)
        await alarms.check()
        with pytest.raises(ConfigError, match="2 running streams have rules already"):
            await alarms.set_rules(third, server_rules)
        assert (await alarms.of(first)).rules == (await alarms.of(second)).rules == server_rules
        await client.end(second)
        await alarms.check()
        await alarms.set_rules(third, server_rules)
        assert [(await alarms.of(one)).rules for one in (first, second, third)] == [
            server_rules, [], server_rules,
        ]  # fmt: skip


async def test_the_requests(serve: Serve) -> None:
    """Rules are stored and replaced; senseless ones and addresses in the body are refused; the page has them."""
    server: LiveServer = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        path = f"/rheed/stream/{data_id}/alarms"
        rule = {"name": RATE, "low": 0.3, "high": 0.5, "undetermined": True, "stale_s": 60.0}
        assert (await client.ask("GET", path))[1] == {"rules": [], "raised": [], "webhooks": 0}
        status, report = await client.ask("PUT", path, {"rules": [rule]})
        assert (status, report["rules"]) == (200, [rule])
        for body in (
            {"rules": [{"name": RATE}]},
            {"rules": [{**rule, "low": 9}]},
            {"rules": [{**rule, "url": "http://169.254.169.254/"}]},
            {"rules": [rule], "webhook": "http://127.0.0.1/"},
            {"rules": [{**rule, "name": f"n{k}"} for k in range(33)]},
            {"rules": [{**rule, "stale_s": 0}]},
        ):
            status, reply = await client.ask("PUT", path, body)
            assert 400 <= status < 500, reply
        assert (await client.ask("GET", path))[1]["rules"] == [rule]
        assert (await client.ask("GET", f"/dashboard/streams/{data_id}"))[1]["alarms"] == []
        unknown = "/rheed/stream/00000000-0000-4000-8000-000000000000/alarms"
        assert (await client.ask("GET", unknown))[0] == 404
        assert (await client.ask("PUT", unknown, {"rules": []}))[0] == 404
