"""An upload URL that does not lead to the server: the error names the server's option that is missing."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from aiohttp import web

from atomstream.errors import ConnectionFailedError, NotFoundError, ServerBusyError, ServiceError
from atomstream.streaming import AsyncRHEEDStreamer
from tests.live_server import Serve
from tests.reverse_proxy import ReverseProxy
from tests.service.recorder import calling, recording
from tests.streaming.stream_helpers import stream_stats
from tests.wire_client import make_frames

PATH = f"/upload/{uuid.UUID(int=0)}/0"
QUERY = "?ticket=e30%3D&signature=SECRET"


def url_at(address: str) -> str:
    """An upload URL of an atomstream server at ``address``."""
    return address + PATH + QUERY


async def failure(endpoint: str, url: str) -> ServiceError:
    """The error of an upload to ``url`` by a client of ``endpoint``."""
    async with calling(endpoint) as api:
        with pytest.raises(ServiceError) as caught:
            await api.put_shard(url, [bytes(4)], 4, crc32c=0)
    return caught.value


@pytest.mark.parametrize("place", ["http://127.0.0.1:9", "http://rheed.invalid", "http://rheed.invalid/lab"])
async def test_an_address_that_nobody_has(place: str) -> None:
    """The message has both addresses and the option; the signature is not in it."""
    error = await failure("http://127.0.0.1:8765", url_at(place))
    assert isinstance(error, ConnectionFailedError)
    assert error.never_sent
    assert f"expects uploads at {place}, but this client reaches it at http://127.0.0.1:8765" in str(error)
    assert "--public-url http://127.0.0.1:8765" in str(error)
    assert "SECRET" not in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "text": "<html>nginx"},
        {"status": 405},
        {"status": 301, "headers": {"Location": "https://lab.example/"}},
        {"status": 401, "text": "login"},
        {"status": 403},
        {"status": 502, "text": "Bad Gateway"},
        {"status": 200, "text": "<html>Welcome"},
        {"status": 204},
    ],
)
async def test_something_else_answers_there(answer: dict[str, Any]) -> None:
    """Another program's answer neither confirms a chunk nor refuses it for good: it is an unreachable server."""
    async with recording() as other:
        other.on(f"PUT {PATH}", lambda *_: web.Response(**answer))
        error = await failure("http://127.0.0.1:8765", url_at(other.url))
    assert isinstance(error, ConnectionFailedError)
    assert error.never_sent
    assert error.status in (answer["status"], None)
    assert "--public-url http://127.0.0.1:8765" in str(error)


async def test_an_atomstream_server_answers_there() -> None:
    """Uploads may have another address on purpose: then the server's own answers count, as everywhere."""
    async with recording() as other:
        for status, kind in ((404, NotFoundError), (503, ServerBusyError)):
            other.on_json(f"PUT {PATH}", {"detail": "No."}, status=status)
            error = await failure("http://127.0.0.1:8765", url_at(other.url))
            assert type(error) is kind
            assert "public-url" not in str(error)
        other.on_json(f"PUT {PATH}", {}, **{"x-amz-checksum-crc32c": "AAAAAA=="})
        async with calling("http://127.0.0.1:8765") as api:
            assert await api.put_shard(url_at(other.url), [bytes(4)], 4, crc32c=0) == 0


@pytest.mark.parametrize("path", ["/bucket/key?X-Amz-Signature=SECRET", "/upload?ticket=1", PATH])
async def test_urls_of_other_services(path: str) -> None:
    """The hosted service signs URLs of a storage service: its errors do not name our option."""
    error = await failure("http://127.0.0.1:8765", f"http://127.0.0.1:9{path}")
    assert "public-url" not in str(error)


async def test_uploads_below_the_endpoint() -> None:
    """An upload URL below the endpoint is accepted, with a prefix or without."""
    async with recording() as server:
        server.on_json(f"PUT /rheed{PATH}", {}, status=404)
        error = await failure(f"{server.url}/rheed", url_at(f"{server.url}/rheed"))
    assert type(error) is NotFoundError
    assert "public-url" not in str(error)


async def test_frames_wait_for_the_upload_address(serve: Serve) -> None:
    """Behind a proxy that hides the address: the stream's state names the option, and nothing is lost."""
    async with ReverseProxy("/rheed", strips=True, keeps_host=True).running() as proxy:
        server = await serve()
        proxy.target = server.url
        async with AsyncRHEEDStreamer(server.api_key, proxy.url, spool_dir=None) as streamer:
            data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
            await streamer.push(data_id, 0, make_frames(4))
            while "--public-url" not in str((await stream_stats(streamer, data_id))["standing_still"]):
                await asyncio.sleep(0.005)
            await server.stop()
            server.change(public_url=proxy.url)
            await server.start()
            await streamer.finalize(data_id)
        assert (server.frames(data_id) == make_frames(4)).all()
