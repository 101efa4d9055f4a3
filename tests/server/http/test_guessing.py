"""Wrong API keys: limited by address and by beginning, logged as one line, and no lock-out of the right key."""

from __future__ import annotations

import asyncio
import logging
import os
import stat

import pytest

from atomstream.errors import ConfigError
from atomstream.server import ServerSettings, ensure_key
from atomstream.server.http import guessing
from atomstream.server.http.api_keys import KeyRing, replace_keys
from atomstream.server.http.guessing import MAX_WRONG, GuessLimiter
from atomstream.server.key_strength import checked_api_key, key_bits
from tests.live_server import Serve
from tests.wire_client import WireClient


class Clock:
    """A clock that a test sets, in s."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def statuses(limiter: GuessLimiter, count: int, address: str, key: str = "guess{}") -> list[int]:
    """Present ``count`` wrong keys at the same time; return the statuses of the replies."""
    tries = [limiter.refuse(address, key.format(k), "GET '/'", "wrong") for k in range(count)]
    return [error.status for error in await asyncio.gather(*tries)]


async def test_ten_a_minute_of_one_address() -> None:
    """However the requests are timed, ten wrong keys a minute are answered with 401; other addresses are not held."""
    clock = Clock()
    limiter = GuessLimiter(clock, delay_s=0.0)
    assert (await statuses(limiter, 300, "10.0.0.1")).count(401) == MAX_WRONG
    assert await statuses(limiter, 1, "10.0.0.2", "other{}") == [401]
    clock.now += 59.0
    assert await statuses(limiter, 1, "10.0.0.1") == [429]
    clock.now += 2.0
    assert (await statuses(limiter, 300, "10.0.0.1")).count(401) == MAX_WRONG
    limiter.close()


async def test_ten_a_minute_of_one_beginning() -> None:
    """Keys with the same beginning are limited together, from whatever addresses they come."""
    limiter = GuessLimiter(Clock(), delay_s=0.0)
    found = [await statuses(limiter, 1, f"10.0.{k}.1", "atst_abcdefgh" + "{}" + str(k)) for k in range(30)]
    assert found.count([401]) == MAX_WRONG
    limiter.close()


async def test_an_ipv6_network_counts_as_one_address() -> None:
    """One person has 2^64 addresses; a mapped IPv4 address is that IPv4 address."""
    limiter = GuessLimiter(Clock(), delay_s=0.0)
    for k in range(MAX_WRONG):
        assert await statuses(limiter, 1, f"2001:db8::{k:x}", f"first{k}{{}}") == [401]
    assert await statuses(limiter, 1, "2001:db8::ffff:1", "first{}") == [429]
    assert (await statuses(limiter, 30, "::ffff:10.0.0.9", "m{}")).count(401) == MAX_WRONG
    assert await statuses(limiter, 1, "10.0.0.9", "last{}") == [429]
    limiter.close()


async def test_the_memory_of_guesses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit, the address whose count is the oldest is removed."""
    monkeypatch.setattr(guessing, "_MAX_COUNTED", 50)
    limiter = GuessLimiter(Clock(), delay_s=0.0)
    for k in range(200):
        await limiter.refuse(f"10.1.{k // 250}.{k % 250}", f"{k}-key", "x", "wrong")
    assert len(limiter._wrong) == 50
    limiter.close()


async def test_guessing_never_locks_the_owner_out(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """After hundreds of wrong keys from the owner's own address the right one works; two lines are in the log."""
    server = await serve()
    async with WireClient(server) as client:

        async def guess(k: int) -> int:
            return (await client.ask("GET", "/tags/", headers={"X-API-KEY": f"atst_{k}_guess"}))[0]

        found = await asyncio.gather(*(guess(k) for k in range(200)))
        assert set(found) == {401, 429}
        assert found.count(401) == MAX_WRONG
        assert (await client.ask("GET", "/tags/"))[0] == 200
        assert (await client.ask("GET", "/tags/", headers={"X-API-KEY": f" {server.api_key}\t"}))[0] == 200
    await server.stop()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2
    assert "a wrong API key was refused from 127.0.0.1 (GET '/tags/')" in lines[0]
    assert lines[1].startswith("199 more wrong API keys were refused from 127.0.0.1")


# The keys themselves.


@pytest.mark.parametrize(
    "key", ["hunter2", "my lab key", "0" * 38, "a1" * 15, "atst_" + "A" * 20, "x" * 27, "Aa1" * 7, "", "   "]
)
def test_short_keys_are_refused(key: str, tmp_path: object) -> None:
    """A key with fewer than 128 bits is refused, with the reason and what to do."""
    with pytest.raises(ConfigError, match=r"too short: .* 128 are needed|is empty"):
        ServerSettings(data_dir=tmp_path, api_key=key)  # type: ignore[arg-type]  # any path


@pytest.mark.parametrize("key", ["0" * 39, "a1" * 16, "atst_" + "A-x" * 9, "x" * 28, "Aa1" * 8])
def test_long_keys_are_accepted(key: str) -> None:
    """Blanks around a key are removed; the key counts by its kinds of characters."""
    assert checked_api_key(f" \t{key}\r\n") == key
    assert key_bits(key) >= 128


@pytest.mark.parametrize("key", ["schlüssel" * 9, "two\nlines" * 9, "x" * 1025])
def test_impossible_keys_are_refused(key: str) -> None:
    """A key that no header can carry is refused at the start, and not at each request."""
    with pytest.raises(ConfigError):
        checked_api_key(key)


async def test_a_replaced_key_does_not_come_back(serve: Serve) -> None:
    """A key given at one start replaces the stored one: the next start without it accepts the new one only."""
    server = await serve()
    first = server.api_key
    await server.stop()
    server.change(api_key="replacement-" + "z" * 30)
    await server.start()
    await server.stop()
    server.change(api_key=None)
    await server.start()
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/tags/"))[0] == 200
        assert (await client.ask("GET", "/tags/", headers={"X-API-KEY": first}))[0] == 401


async def test_a_temporary_key_leaves_the_stored_ones(serve: Serve) -> None:
    """The key of an embedded server is valid for its run; afterwards the lab's own key is valid again."""
    server = await serve()
    first = server.api_key
    await server.stop()
    server.change(api_key="for-this-run-" + "z" * 30, temporary_key=True)
    await server.start()
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/tags/", headers={"X-API-KEY": first}))[0] == 401
    await server.stop()
    assert KeyRing.load(server.data_dir, None).opens(first)


def test_a_damaged_key_file_is_replaced_by_a_given_key(tmp_path: object) -> None:
    """A given key is stored also where the old key file can't be read."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "keys.json").write_text("[{")
    replace_keys(folder, "x" * 40)
    assert KeyRing.load(folder, None).opens("x" * 40)
    assert ensure_key(folder) is None
    if os.name != "nt":
        assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
