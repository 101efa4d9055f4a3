"""A server that repeats the API key or a signed URL in any part of its answer: neither log nor error contains them."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atomstream.errors import ServiceError
from atomstream.service.api import ServiceApi
from atomstream.service.error_mapping import ErrorBody

KEY = "a-chosen-key-" + "Zq7" * 12
SIGNATURE = "signature=" + "5f" * 32
URL_PATH = f"/upload/d/0?ticket=eyJ0aWNrZXQ&{SIGNATURE}"

ANSWERS = {
    "header with a control character": "HTTP/1.1 200 OK\r\nX-API-KEY: {0}\x01\r\n\r\n",
    "status line": "HTTP/1.1 {0} {0}\r\n\r\n",
    "not HTTP": "{0}\r\n\r\n",
    "bad chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{0}\r\n",
    "bad length": "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n",
    "bad cookie": "HTTP/1.1 200 OK\r\nSet-Cookie: {0} ={0}; path={0}\r\nContent-Length: 1\r\n\r\nx",
    "redirect": "HTTP/1.1 302 {0}\r\nLocation: http://evil.example/{0}?x={0}\r\nContent-Length: 0\r\n\r\n",
    "refusal": 'HTTP/1.1 401 {0}\r\nContent-Length: 80\r\n\r\n{{"detail": "the key {0} is wrong"}}',
    "JSON": 'HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n["{0}"',
    "page": "HTTP/1.1 500 x\r\nContent-Length: 90\r\n\r\n<html><Message>{0}</Message></html>",
}


@asynccontextmanager
async def repeating(answer: str) -> AsyncIterator[str]:
    """A server that answers each connection with ``answer``, in which {0} is what the request must keep secret."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        secret = KEY if KEY in head else SIGNATURE
        writer.write(answer.format(secret).encode("latin1"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("upload", [False, True])
async def test_nothing_secret_comes_back(name: str, upload: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a log record at the most verbose level nor the error with its whole chain contains the secret."""
    caplog.set_level(logging.DEBUG)
    async with repeating(ANSWERS[name]) as url:
        api = ServiceApi(url, KEY, request_timeout_s=5.0, upload_timeout_s=5.0, connections=2)
        shown = ""
        try:
            if upload:
                await api.put_shard(url + URL_PATH, pieces(), 1, crc32c=0, what="upload a chunk")
            else:
                await api.list_tags()
        except ServiceError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error.detail)
        finally:
            await api.close()
    assert shown or upload  # a stored chunk may be confirmed by a reply with odd headers
    shown += "".join(logging.Formatter().format(record) for record in caplog.records)
    assert KEY not in shown
    assert SIGNATURE not in shown
    assert "ticket=eyJ" not in shown


async def pieces() -> AsyncIterator[bytes]:
    """A body of one byte."""
    yield b"x"


@pytest.mark.parametrize("key", ["wrong", "key", "API", "is", "The API key is wrong"[:1], "server"])
def test_a_wrong_key_leaves_the_sentence_readable(key: str) -> None:
    """A key that is only a word is not removed from the server's sentence about it."""
    body = b'{"detail": "The API key is wrong: it is not a key of this server."}'
    assert ErrorBody.parse(body, (key,)).text == "The API key is wrong: it is not a key of this server."
