"""Malformed requests: nothing of them is in the log, and many make one line."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

import pytest

from atomstream.server.http.tally import MAX_ADDRESSES, Tally
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

KEY = "atst_" + "s3cr3T" * 7
MARKS = ("s3cr3T", "COOKIEVALUE", "PATHSECRET", "HEADERNAME")

MALFORMED = {
    "control character": "GET /tags/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {key}\x01\r\n\r\n",
    "blank before the colon": "GET /tags/ HTTP/1.1\r\nHost: x\r\nX-API-KEY : {key}\r\n\r\n",
    "no colon": "GET /tags/ HTTP/1.1\r\nHost: x\r\nHEADERNAME {key}\r\n\r\n",
    "folded": "GET /tags/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {key}\r\n {key}\r\n\r\n",
    "bare LF": "GET /tags/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {key}\n\r\n\r\n",
    "another header": "GET /tags/ HTTP/1.1\r\nHost: x\r\nX-Own: {key}\x00\r\n\r\n",
    "wrong version": "PUT /upload/x/1?ticket={key}&signature=PATHSECRET HTTP/1.7\r\nHost: x\r\n\r\n",
    "blank in the path": "PUT /PATHSECRET {key} HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown method": "{key} /PATHSECRET HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad chunk": 'POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{{"key":"{key}"}}\r\n',
    "bad length": 'POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n{{"key":"{key}"}}\r\n',
    "cookie": "GET /session HTTP/1.1\r\nHost: x\r\nCookie: atomstream_session_1=COOKIEVALUE\x01\r\n\r\n",
    "long line": "GET /" + "PATHSECRET" * 2000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": "GET / HTTP/1.1\r\nHost: x\r\nX-API-KEY: " + "{key}" * 500 + "\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03{key}\r\n\r\n",
    "WebSocket protocols": (
        "GET /rheed/stream/5db5c30e-a4e7-4404-bbce-e2c3e2c819bc/feed HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Protocol: {key}\r\nCookie: COOKIEVALUE={key}\r\n\r\n"
    ),
}


async def send_raw(server: LiveServer, data: bytes, *, half_close: bool = True) -> bytes:
    """Send bytes on a new connection and return the answer, until the server closes it or is done."""
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(data)
        if half_close:  # else the server must close the connection itself
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("name", MALFORMED)
async def test_nothing_of_a_malformed_request_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """At the most verbose level no part of a key, a signed URL, a cookie or a body is in any logger's records."""
    caplog.set_level(logging.DEBUG)
    server = await serve(api_key=KEY)
    host = urlsplit(server.url).netloc
    await send_raw(
        server, MALFORMED[name].format(key=KEY).replace("Host: x", f"Host: {host}").encode("latin1")
    )
    await server.stop()
    formatted = [logging.Formatter("%(message)s").format(record) for record in caplog.records]
    for mark in MARKS:
        assert not [line for line in formatted if mark in line]


async def test_many_malformed_requests_make_two_lines(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The first one is logged at once, the others as a number; no traceback is written."""
    server = await serve()
    for _ in range(20):
        answer = await send_raw(server, b"GET / HTTP/9\r\n\r\n", half_close=False)
        assert b" 400 " in answer[:20]
    await server.stop()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2
    assert "malformed request" in lines[0]
    assert lines[1].startswith("19 more malformed requests were refused from 127.0.0.1")
    assert "Traceback" not in caplog.text


async def test_a_wrong_signature_is_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Signed URLs that are refused leave neither their ticket nor their signature in the log."""
    caplog.set_level(logging.DEBUG)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, (4, 8, 12))
        ticket = url.split("ticket=")[1]
        for changed in (
            url + "x",
            url.replace("/upload/", "/upload/x"),
            url.replace("ticket=", "ticket=%00"),
        ):
            await client.put(changed, b"x")
    await server.stop()
    assert ticket[:40] not in "".join(record.getMessage() for record in caplog.records)


async def test_a_tally_writes_one_line_for_many() -> None:
    """Addresses are counted, a bounded number of them apart, and a line follows only when its time is over."""
    lines: list[str] = []
    tally = Tally(lines.append, "a stone fell", "stones fell", every_s=1e9)
    for k in range(1000):
        tally.note(f"10.0.{k // 256}.{k % 256}")
    tally.note("10.0.0.1")
    assert len(lines) == 1
    assert "a stone fell from 10.0.0.0" in lines[0]
    tally.close()
    assert lines[1].startswith(f"1000 more stones fell from {MAX_ADDRESSES + 1} addresses")
    tally.close()
    assert len(lines) == 2
