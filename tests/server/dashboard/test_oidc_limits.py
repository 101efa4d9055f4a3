"""What strangers can make a server with OpenID Connect ask its provider for."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from aiohttp import web

from atomstream.server.dashboard import oidc_limits
from atomstream.server.dashboard.oidc_limits import OidcLimits
from atomstream.server.http import oidc_provider
from atomstream.server.http.responses import HttpError
from tests.live_server import Serve
from tests.server.dashboard.oidc_providers import ScriptedProvider
from tests.server.dashboard.test_login import browser
from tests.server.dashboard.test_oidc import begin, come_back, settings_of

pytest.importorskip("joserfc")


async def test_invented_codes_are_limited_by_address(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie of a sign-in, which anybody gets, leads to a few requests to the provider, not to any number."""
    monkeypatch.setattr(oidc_limits, "MAX_FAILED", 3)
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as stranger:
            assert (await come_back(stranger, "/oidc/callback?code=x&state=y"))[0] == 401
            assert provider.token_requests == 0
            state = (await begin(stranger)).split("state=")[1].split("&")[0]
            found = [
                (await come_back(stranger, f"/oidc/callback?code=invented-{number}&state={state}"))[0]
                for number in range(6)
            ]
            assert found == [401, 401, 401, 429, 429, 429]
            assert provider.token_requests == 3
            async with stranger.get(f"/oidc/callback?code=x&state={state}") as reply:
                assert 1 <= int(reply.headers["Retry-After"]) <= 61


async def test_sign_ins_that_succeed_are_not_limited(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole institute may sign in through one address, that of a proxy."""
    monkeypatch.setattr(oidc_limits, "MAX_FAILED", 1)
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        for _ in range(3):
            async with browser(server) as session:
                assert (await come_back(session, provider.approve(await begin(session))))[0] == 302


async def test_few_ask_the_provider_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait, as many as there are places for; a place is free again whatever happened to its holder."""
    monkeypatch.setattr(oidc_limits, "AT_ONCE", 1)
    monkeypatch.setattr(oidc_limits, "MAX_WAITING", 1)
    limits, ending, holding = OidcLimits(), asyncio.Event(), asyncio.Queue[int]()

    async def hold(number: int) -> None:
        async with limits.exchange("192.0.2.1"):
            holding.put_nowait(number)
            await ending.wait()

    first = asyncio.create_task(hold(1))
    assert await holding.get() == 1
    second = asyncio.create_task(hold(2))
    await asyncio.sleep(0)
    with pytest.raises(HttpError) as refused:
        await hold(3)
    assert (refused.value.status, holding.empty()) == (503, True)
    first.cancel()
    assert await holding.get() == 2
    ending.set()
    await second
    await hold(4)


async def test_a_provider_that_does_not_answer_a_code(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its requests together have a time limit, after which the place is free for another sign-in."""
    monkeypatch.setattr(oidc_limits, "AT_ONCE", 1)
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            back = provider.approve(await begin(session))
            provider.answering.clear()
            with monkeypatch.context() as patch:
                patch.setattr(oidc_limits, "EXCHANGE_S", 0.01)
                status, sentence = await come_back(session, back)
                assert (status, "did not answer" in sentence) == (503, True)
            provider.answering.set()
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302


async def test_a_failure_of_the_metadata_answers_many(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the provider fails, sign-ins that begin share one request to it; afterwards it is asked again."""
    monkeypatch.setattr(oidc_provider, "METADATA_RETRY_S", 3600.0)
    async with ScriptedProvider().running() as provider:
        provider.metadata = {"issuer": "https://another.example"}
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:

            async def status() -> int:
                async with session.get("/oidc/login", allow_redirects=False) as reply:
                    return reply.status

            assert await asyncio.gather(*(status() for _ in range(10))) == [502] * 10
            assert provider.metadata_requests == 1
            provider.metadata = {}
            monkeypatch.setattr(oidc_provider, "METADATA_RETRY_S", 0.0)
            assert await status() == 302


async def test_a_compressed_answer_is_bounded(serve: Serve) -> None:
    """A small body that becomes a large one is refused like a large one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(64)) + packer.flush()
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            provider.token_reply = web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
            status, sentence = await come_back(session, provider.approve(await begin(session)))
            assert (status, "too long" in sentence) == (502, True)
