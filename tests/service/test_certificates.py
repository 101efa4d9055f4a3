"""The server's certificate, as the client checks it: trusted by an authority, or pinned by its SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from atomstream.config import pinned_certificate
from atomstream.errors import ConfigError, ConnectionFailedError, UrlExpiredError
from atomstream.service.replies import Call
from atomstream.service.upload_body import UploadBody
from tests.paths import REPO
from tests.service.recorder import KEY, calling

VARIABLE = "ATOMSTREAM_TLS_FINGERPRINT"
OTHER = "ab" * 32
PIXELS = [memoryview(b"pixels")]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-keyout", folder / "k.pem", "-out", folder / "c.pem"),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl command to make a certificate with")
    return folder / "c.pem", folder / "k.pem"


def fingerprint(certificate: tuple[Path, Path]) -> str:
    """The SHA-256 of a certificate in hexadecimal digits."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate[0].read_text())).hexdigest()


@asynccontextmanager
async def listening(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[str, list[str]]]:
    """An https server that answers with 403 and opens any WebSocket. Yields its URL and the list of its requests."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.method} {request.headers.get('X-API-KEY')}")
        if "Upgrade" not in request.headers:
            return web.json_response([], status=403 if request.method == "PUT" else 200)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def test_an_untrusted_certificate_is_named(certificate: tuple[Path, Path]) -> None:
    """An untrusted certificate is rejected before anything is sent; the message names the two variables that can
    help."""
    async with listening(certificate) as (url, seen), calling(url) as api:
        with pytest.raises(ConnectionFailedError, match="certificate is not trusted: self") as caught:
            await api.list_tags()
    assert caught.value.never_sent
    assert seen == []
    assert "SSL_CERT_FILE" in str(caught.value)
    assert VARIABLE in str(caught.value)


async def test_a_pinned_certificate_is_accepted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls, uploads and WebSockets connect to the server with the pinned certificate."""
    monkeypatch.setenv(VARIABLE, fingerprint(certificate))
    async with listening(certificate) as (url, seen), calling(url) as api:
        assert await api.list_tags() == []
        transport = api._transport
        with pytest.raises(UrlExpiredError):
            await transport.put("upload", f"{url}/upload", UploadBody(PIXELS, len(PIXELS[0])))
        await (await transport.open_socket(Call("follow", "GET", "/feed"), "p")).close()
    assert seen == [f"GET {KEY}", "PUT None", f"GET {KEY}"]


async def test_another_certificate_is_refused(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate other than the pinned one gets neither key nor frames, by any kind of request."""
    monkeypatch.setenv(VARIABLE, OTHER)
    async with listening(certificate) as (url, seen), calling(url) as api:
        transport = api._transport
        for attempt in (
            api.list_tags(),
            transport.put("upload", f"{url}/upload", UploadBody(PIXELS, len(PIXELS[0]))),
            transport.open_socket(Call("follow", "GET", "/feed"), "p"),
        ):
            with pytest.raises(ConnectionFailedError, match=fingerprint(certificate)) as caught:
                await attempt
            assert caught.value.never_sent
    assert seen == []


async def test_the_pin_is_that_of_the_endpoint_only(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload URL of another host is checked as usual: the pin neither opens nor blocks it."""
    monkeypatch.setenv(VARIABLE, fingerprint(certificate))
    async with listening(certificate) as (url, seen), calling("https://127.0.0.1:1") as api:
        with pytest.raises(ConnectionFailedError, match="not trusted"):
            await api._transport.put("upload", f"{url}/upload", UploadBody(PIXELS, len(PIXELS[0])))
    assert seen == []


SEND = """
import asyncio, sys
from tests.paths import REPO
from atomstream.service.api import ServiceApi

async def main() -> None:
    api = ServiceApi(sys.argv[1], "key", request_timeout_s=20, upload_timeout_s=20, connections=1)
    print(await api.list_tags())
    await api.close()

asyncio.run(main())
"""


async def test_an_authority_of_the_user(certificate: tuple[Path, Path]) -> None:
    """A client that starts with ``SSL_CERT_FILE`` trusts the certificates in that file."""
    async with listening(certificate) as (url, _):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", SEND, url.replace("127.0.0.1", "localhost")),
            env={**os.environ, "SSL_CERT_FILE": str(certificate[0]), "PYTHONPATH": str(REPO)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, messages = await child.communicate()
    assert (out.decode(), messages.decode()) == ("[]\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "ab" * 32,
        "AB" * 32,
        ":".join(["ab"] * 32),
        "sha256:" + "ab" * 32,
        "SHA256 Fingerprint=" + "AB:" * 31 + "AB",
        f" {OTHER}\n",
    ],
)
def test_ways_to_write_a_fingerprint(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """As atomstream, openssl and browsers print it."""
    monkeypatch.setenv(VARIABLE, text)
    assert pinned_certificate("https://lab-pc:8765") == b"\xab" * 32


@pytest.mark.parametrize("text", ["ab" * 31, "ab" * 20, "xy" * 32, "yes", "sha1:" + "ab" * 32])
def test_an_invalid_fingerprint(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Anything else is an error, also for a server on this computer."""
    monkeypatch.setenv(VARIABLE, text)
    for endpoint in ("https://lab-pc:8765", "http://127.0.0.1:8765"):
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            pinned_certificate(endpoint)


def test_a_pin_needs_https(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pin and a plain http endpoint contradict each other, except on this computer; an empty value is not a pin."""
    monkeypatch.setenv(VARIABLE, OTHER)
    with pytest.raises(ConfigError, match="https://"):
        pinned_certificate("http://lab-pc:8765")
    assert pinned_certificate("http://127.0.0.1:8765") is None
    monkeypatch.setenv(VARIABLE, " ")
    assert pinned_certificate("http://lab-pc:8765") is None


def test_the_streamer_reports_it_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong value is an error of the constructor, before any frame is accepted."""
    from atomstream import RHEEDStreamer

    monkeypatch.setenv(VARIABLE, "wrong")
    with pytest.raises(ConfigError, match=VARIABLE):
        RHEEDStreamer("key" * 9, "https://lab-pc:8765", spool_dir=tmp_path)
