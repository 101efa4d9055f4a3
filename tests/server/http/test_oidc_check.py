"""The check of the OpenID Connect provider before a start: each kind of fault is a sentence, within a time limit."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.http.certificate import self_signed_pair
from atomstream.server.oidc_settings import OidcSettings
from atomstream.server.preflight import check_start
from atomstream.server.runner import running_server
from atomstream.server.settings import ServerSettings
from tests.server.dashboard.oidc_providers import ScriptedProvider, free_port

pytest.importorskip("joserfc")


def settings_of(issuer: str) -> OidcSettings:
    """A provider at that address."""
    return OidcSettings(issuer=issuer, client_id="atomstream", default_role="viewer")


async def check(issuer: str, limit_s: float = 10.0) -> str:
    """The sentence of the check, also that of its error."""
    from atomstream.server.http.oidc_check import check_provider

    try:
        return await asyncio.to_thread(check_provider, settings_of(issuer), limit_s)
    except ConfigError as error:
        return f"FAILS {error}"


async def test_what_a_provider_answers() -> None:
    """A good provider passes; another name, clock, flow, address, and missing or unreadable keys are named."""
    async with ScriptedProvider().running() as provider:
        issuer = provider.issuer
        assert await check(issuer) == (
            f"{issuer} answers and has 1 key; the client id is first checked at a sign-in"
        )
        for seconds, found in ((25, "Its clock is 2"), (-300, "FAILS The provider's clock is 3")):
            provider.headers = {"Date": formatdate(time.time() + seconds, usegmt=True)}
            assert found in await check(issuer)
        provider.headers = {"Date": "yesterday"}
        assert (await check(issuer)).startswith(issuer)
        for metadata, word in (
            ({"issuer": issuer + "/"}, "They must be equal"),
            ({"response_types_supported": ["id_token"]}, "authorization code flow"),
            ({"token_endpoint": "http://other.example/token"}, "is not an https address"),
            ({"jwks_uri": f"{issuer}/missing"}, "answered 404"),
        ):
            provider.metadata = metadata
            answer = await check(issuer)
            assert (answer.startswith("FAILS"), word in answer) == (True, True), answer
        provider.metadata, provider.keys = {}, []
        assert "keys can't be read" in await check(issuer)


async def test_a_provider_that_cannot_be_reached(tmp_path: Path) -> None:
    """Nobody listens, no answer comes, or the certificate is not trusted."""
    assert "can't be reached: " in await check(f"http://127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await check(issuer, 0.2) == f"FAILS The provider {issuer} did not answer in 0.2 s."
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*self_signed_pair(ServerSettings(data_dir=tmp_path)))
    async with await asyncio.start_server(lambda *_streams: None, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        assert "its certificate is not trusted here" in await check(f"https://127.0.0.1:{port}")


async def test_the_look_up_of_a_name_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check has the same time limit if a name server does not answer."""
    import threading

    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: end.wait())
    try:
        assert "did not answer in 0.1 s" in await check("https://login.example", 0.1)
    finally:
        end.set()


async def test_it_is_part_of_the_check_before_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding is named sign-in; without the package neither the check nor a start succeeds."""
    settings = ServerSettings(data_dir=tmp_path, port=0, oidc=settings_of(f"http://127.0.0.1:{free_port()}"))
    (finding,) = [one for one in await asyncio.to_thread(check_start, settings) if not one.ok]
    assert (finding.name, "can't be reached" in finding.text) == ("sign-in", True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    (finding,) = [one for one in await asyncio.to_thread(check_start, settings) if not one.ok]
    assert "atomstream[oidc]" in finding.text
    with pytest.raises(ConfigError, match=r"atomstream\[oidc\]"):
        async with running_server(settings):
            pass
