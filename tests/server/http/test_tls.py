"""TLS: certificates from files and self-signed ones, their replacement, and handshakes that do not end."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import ssl
import stat
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import ConfigError
from atomstream.server import ServerSettings
from atomstream.server.http.certificate import CERTIFICATE_FILE, KEY_FILE, ServerCertificate, self_signed_pair
from atomstream.server.http.connections import CLIENT_BYTES, NO_KEY_BYTES
from atomstream.service.api import ServiceApi
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames

Pair = tuple[Path, Path]


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, Pair]:
    """Two certificates with their keys."""
    first, second = (
        self_signed_pair(ServerSettings(data_dir=tmp_path / name)) for name in ("first", "second")
    )
    return first, second


def copy(pair: Pair, to: Pair) -> None:
    """Replace the files of a certificate by those of another one, as certbot does."""
    for source, target in zip(pair, to, strict=True):
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)


def certificate_of(server: LiveServer) -> ServerCertificate:
    """The certificate of a running server."""
    assert server.running is not None
    assert server.running.certificate is not None
    return server.running.certificate


def pinned(server: LiveServer) -> WireClient:
    """A client that accepts the server's certificate only."""
    pin = aiohttp.Fingerprint(bytes.fromhex(certificate_of(server).fingerprint))
    return WireClient(server, connector=aiohttp.TCPConnector(ssl=pin))


def unchecked() -> ssl.SSLContext:
    """A context that accepts any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def presented(url: str, name: str | None = None) -> bytes:
    """The certificate (DER) that a server shows to a new connection, asked for by ``name`` (SNI) or without."""
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(
        parts.hostname, parts.port, ssl=unchecked(), server_hostname=name or ""
    )
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


def der(certificate: Path) -> bytes:
    """A certificate file as DER."""
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


async def test_a_stream_over_a_self_signed_certificate(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client pins the certificate that the server made; calls, uploads and live results pass through TLS."""
    server = await serve(tls="self-signed")
    assert server.url.startswith("https://127.0.0.1:")
    monkeypatch.setenv("ATOMSTREAM_TLS_FINGERPRINT", certificate_of(server).fingerprint)
    frames = make_frames(12, 16, 16)
    async with AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path) as streamer:
        data_id = await streamer.initialize(fps=6.0, rotations_per_min=0.0, chunk_size=12, stream_name="tls")
        await streamer.push(data_id, 0, frames)
        report = await streamer.finalize(data_id)
    api = ServiceApi(server.url, server.api_key, request_timeout_s=20.0, upload_timeout_s=20.0, connections=1)
    async with aclosing(api.results.feed(data_id, 0)) as feed:
        assert await anext(feed)
    await api.close()
    assert report["chunks_uploaded"] == 1
    assert np.array_equal(server.archive(data_id).frames(0, 12), frames)


async def test_the_pair_is_made_once_and_private(serve: Serve) -> None:
    """A restart keeps certificate and fingerprint; only the user can read the files."""
    server = await serve(tls="self-signed")
    before = certificate_of(server).fingerprint
    assert before.encode() not in (server.data_dir / KEY_FILE).read_bytes()
    if os.name != "nt":
        for name in (CERTIFICATE_FILE, KEY_FILE):
            assert stat.S_IMODE((server.data_dir / name).stat().st_mode) == 0o600
    await server.stop()
    await server.start()
    assert certificate_of(server).fingerprint == before


async def test_names_in_the_certificate(serve: Serve) -> None:
    """Without a pin, a client that trusts the file accepts the loopback names and those in the settings."""
    server = await serve(tls="self-signed", allowed_hosts=("mbe-pc.lab.local",))
    trusting = ssl.create_default_context(cafile=str(server.data_dir / CERTIFICATE_FILE))
    parts = urlsplit(server.url)
    for name in ("127.0.0.1", "localhost", "mbe-pc.lab.local"):
        _, writer = await asyncio.open_connection(
            parts.hostname, parts.port, ssl=trusting, server_hostname=name
        )
        writer.close()
        await writer.wait_closed()


async def test_the_page_and_the_cookie(serve: Serve) -> None:
    """The page gets the fingerprint from ``GET /session``; the cookie of a login is sent over TLS only."""
    server = await serve(tls="self-signed")
    async with pinned(server) as client:
        async with client.session.get(f"{server.url}/session") as reply:
            assert (await reply.json())["tls_fingerprint"] == certificate_of(server).fingerprint
        login = {"json": {"key": server.api_key}, "headers": {"Origin": server.url}}
        async with client.session.post(f"{server.url}/session", **login) as reply:
            assert reply.status == 204
            assert "Secure" in reply.headers["Set-Cookie"]


async def test_without_tls_no_fingerprint_is_shown(serve: Serve) -> None:
    """A server without TLS has no certificate to show."""
    server = await serve()
    async with WireClient(server) as client:
        assert "tls_fingerprint" not in (await client.ask("GET", "/session"))[1]


@pytest.mark.parametrize("name", [None, "localhost"])
async def test_new_files_are_used_without_a_restart(
    serve: Serve, pairs: tuple[Pair, Pair], name: str | None
) -> None:
    """New connections get the new certificate, whatever name they ask for; open ones go on with the old one."""
    used, new = pairs
    server = await serve(tls_cert=used[0], tls_key=used[1])
    async with pinned(server) as client:
        assert await presented(server.url, name) == der(used[0])
        assert (await client.ask("GET", "/projects/"))[0] == 200
        copy(new, used)
        assert certificate_of(server).reload()
        assert await presented(server.url, name) == der(new[0])
        assert (await client.ask("GET", "/projects/"))[0] == 200
        assert not certificate_of(server).reload()


async def test_a_renewed_certificate_is_found_without_a_call(
    serve: Serve, pairs: tuple[Pair, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal and no command is needed for a new certificate."""
    monkeypatch.setattr("atomstream.server.http.certificate.CHECK_PERIOD_S", 0.01)
    used, new = pairs
    server = await serve(tls_cert=used[0], tls_key=used[1])
    copy(new, used)
    while await presented(server.url) != der(new[0]):
        pass


async def test_half_written_files_change_nothing(
    serve: Serve, pairs: tuple[Pair, Pair], caplog: pytest.LogCaptureFixture
) -> None:
    """While certificate and key do not belong together, or are not PEM, the old ones remain; one warning for each."""
    used, new = pairs
    server = await serve(tls_cert=used[0], tls_key=used[1])
    old, kept = der(used[0]), used[1].read_bytes()
    with caplog.at_level(logging.WARNING, "atomstream.server"):
        for damage in (
            lambda: shutil.copy(new[0], used[0]),
            lambda: used[0].write_text("no certificate"),
            used[1].unlink,
        ):
            damage()
            assert not certificate_of(server).reload()
            assert not certificate_of(server).reload()
            assert await presented(server.url) == old
            assert await presented(server.url, "localhost") == old
        copy(new, used)
        assert certificate_of(server).reload()
    assert await presented(server.url) == der(new[0])
    assert caplog.text.count("The old TLS certificate remains") == 3
    assert kept.decode() not in caplog.text


async def test_an_expired_certificate(
    serve: Serve,
    pairs: tuple[Pair, Pair],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does not replace a valid one, and a valid one replaces it. A server starts with it, with a line in the log."""
    used, new = pairs
    server = await serve(tls_cert=used[0], tls_key=used[1])
    monkeypatch.setattr("atomstream.server.http.certificate.VALID_DAYS", 0)
    expired = self_signed_pair(ServerSettings(data_dir=tmp_path / "expired"))
    old = der(used[0])
    with caplog.at_level(logging.WARNING, "atomstream.server"):
        copy(expired, used)
        assert not certificate_of(server).reload()
        assert await presented(server.url) == old
        assert re.search(r"The old TLS certificate remains: .* expired on 20", caplog.text)
        again = ServerCertificate(*expired)
        assert "unless they pin its fingerprint" in caplog.text
        copy(new, expired)
        assert again.reload()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_a_file_without_end_is_not_read(pairs: tuple[Pair, Pair]) -> None:
    """A pipe, a device or a huge file in place of a certificate or key: an error at once, and the old one remains."""
    (certificate, key), _ = pairs
    served = ServerCertificate(certificate, key)
    for path in (certificate, key):
        kept = path.read_bytes()
        for replace in (os.mkfifo, lambda path: os.symlink("/dev/zero", path), _make_huge):
            path.unlink()
            replace(path)
            with pytest.raises(ConfigError, match=r"not a file|longer than"):
                ServerCertificate(certificate, key)
            assert not served.reload()
        path.unlink()
        path.write_bytes(kept)


def _make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda used, _new: used[0].unlink(), "can't be read"),
        (lambda used, _new: used[1].unlink(), "can't be read"),
        (lambda used, new: shutil.copy(new[1], used[1]), "key values mismatch"),
        (lambda used, _new: used[0].write_text("nothing"), "PEM"),
        (lambda used, _new: used[1].write_text("nothing"), "PEM"),
    ],
    ids=["no certificate", "no key", "another key", "not PEM", "key not PEM"],
)
async def test_files_that_can_not_be_used(
    serve: Serve, pairs: tuple[Pair, Pair], damage: Callable[[Pair, Pair], object], message: str
) -> None:
    """The server does not start, with the reason."""
    used, new = pairs
    damage(used, new)
    with pytest.raises(ConfigError, match=message):
        await serve(tls_cert=used[0], tls_key=used[1])


async def test_an_encrypted_key_is_refused(serve: Serve, pairs: tuple[Pair, Pair]) -> None:
    """A key with a password is an error, and OpenSSL does not ask for it on the terminal."""
    from cryptography.hazmat.primitives import serialization as pem

    (certificate, key), _ = pairs
    loaded = pem.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"pass"))
    )
    with pytest.raises(ConfigError, match="without a password"):
        await serve(tls_cert=certificate, tls_key=key)


async def test_half_a_self_signed_pair(serve: Serve) -> None:
    """A lost key is an error, because a new pair would have another fingerprint; a link is not followed."""
    server = await serve(tls="self-signed")
    await server.stop()
    key = server.data_dir / KEY_FILE
    key.rename(server.data_dir / "elsewhere.pem")
    with pytest.raises(ConfigError, match="is missing"):
        await server.start()
    key.symlink_to(server.data_dir / "elsewhere.pem")
    with pytest.raises(ConfigError, match="link"):
        await server.start()


@pytest.mark.parametrize(
    "bad",
    [
        {"tls": "yes"},
        {"tls_cert": Path("c.pem")},
        {"tls_key": Path("k.pem")},
        {"tls": "self-signed", "tls_cert": Path("c.pem"), "tls_key": Path("k.pem")},
    ],
    ids=str,
)
def test_contradicting_settings(tmp_path: Path, bad: dict[str, object]) -> None:
    """Half of a pair, or both kinds of certificate, are refused."""
    with pytest.raises(ConfigError, match="tls"):
        ServerSettings(data_dir=tmp_path, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "lab-pc"])
async def test_plain_http_beyond_this_computer_is_refused(serve: Serve, host: str) -> None:
    """The refusal names both ways out; loopback needs neither."""
    with pytest.raises(ConfigError, match=r"--tls self-signed.*--insecure-network"):
        await serve(host=host)
    for allowed in ({"insecure_network": True}, {"tls": "self-signed"}):
        ServerSettings(data_dir=Path(), host=host, **allowed).check_network()  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_needs_no_tls(host: str) -> None:
    """On this computer nobody is in between."""
    ServerSettings(data_dir=Path(), host=host).check_network()


async def test_a_request_together_with_the_handshake(serve: Serve) -> None:
    """A client may send its request in the same packet as the end of its handshake; both are answered."""
    server = await serve(tls="self-signed")
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = unchecked().wrap_bio(received, sent, server_hostname="localhost")
    done = False
    while not done:
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            writer.write(sent.read())
            received.write(await reader.read(65536))
    tls.write(f"GET /health HTTP/1.1\r\nHost: localhost:{parts.port}\r\n\r\n".encode())
    writer.write(sent.read())  # the last message of the handshake and the request
    answer = b""
    while b"ok" not in answer:
        try:
            answer += tls.read(65536)
        except ssl.SSLWantReadError:
            received.write(await reader.read(65536))
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_unfinished_handshakes_take_places_and_make_room(serve: Serve) -> None:
    """Connections without a handshake are counted, and closed for new ones; a client with a key still gets in."""
    server = await serve(tls="self-signed", max_connections=4)
    parts = urlsplit(server.url)
    silent = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(6)]
    async with pinned(server) as client:
        assert (await client.ask("GET", "/projects/"))[0] == 200
        assert await silent[0][0].read() == b""
    for _, writer in silent:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_client_without_a_key_takes_little_memory(serve: Serve) -> None:
    """The buffer of a connection is small, from the handshake until a request with a key."""
    server = await serve(tls="self-signed")
    parts = urlsplit(server.url)
    assert server.running is not None
    guard = server.running.connections

    def buffers() -> list[int]:
        return [len(one._wire.get_protocol()._ssl_buffer) for one in guard._by_handler.values()]  # type: ignore[attr-defined]

    _, silent = await asyncio.open_connection(parts.hostname, parts.port)
    async with pinned(server) as client:
        async with client.session.get(f"{server.url}/health") as reply:
            assert reply.status == 200
        assert buffers() == [NO_KEY_BYTES] * 2
        for _ in range(2):
            assert (await client.ask("GET", "/projects/"))[0] == 200
        assert sorted(buffers()) == [NO_KEY_BYTES, CLIENT_BYTES]
    silent.close()
    await asyncio.gather(silent.wait_closed(), return_exceptions=True)


async def test_plain_http_to_the_https_port(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """One log line states what is wrong with the connection, without what was sent."""
    server = await serve(tls="self-signed")
    with caplog.at_level(logging.WARNING, "atomstream.server"):
        async with aiohttp.ClientSession(headers=server.headers) as session:
            for _ in range(3):
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"http{server.url.removeprefix('https')}/projects/")
        await server.stop()
    assert caplog.text.count("must begin with https://") == 1
    assert server.api_key not in caplog.text


async def test_handshakes_end_with_the_server(serve: Serve) -> None:
    """A stop closes connections in the handshake and those that wait for a request."""
    server = await serve(tls="self-signed")
    parts = urlsplit(server.url)
    half = await asyncio.open_connection(parts.hostname, parts.port)
    idle = await asyncio.open_connection(parts.hostname, parts.port, ssl=unchecked(), server_hostname="x")
    await server.stop()
    for reader, writer in (half, idle):
        await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
