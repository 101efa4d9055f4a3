"""Which reply raises which error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses

from atomstream.errors import (
    AuthenticationError,
    ClosedError,
    ConflictError,
    ConnectionFailedError,
    NotFoundError,
    RejectedError,
    ServerBusyError,
    ServiceError,
    UrlExpiredError,
)
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import NamedItem, NewStreamBody
from tests.service.recorder import KEY, calling

HOST = "http://lab.example:8765"
SIGNED = f"{HOST}/put?sig=SIGNATURE"


@pytest.fixture
async def api() -> AsyncIterator[ServiceApi]:
    """The client under test."""
    async with calling(HOST) as api:
        yield api


@pytest.fixture
def web() -> Any:
    """The replies of a mocked server."""
    with aioresponses() as mocked:
        yield mocked


async def failure(call: Awaitable[object]) -> ServiceError:
    """The error of a call that must fail."""
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, RejectedError),
        (307, RejectedError),
        (400, RejectedError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (407, ConnectionFailedError),
        (408, ServerBusyError),
        (409, ConflictError),
        (410, NotFoundError),
        (413, RejectedError),
        (422, RejectedError),
        (425, ServerBusyError),
        (429, ServerBusyError),
        (500, ServerBusyError),
        (501, RejectedError),
        (502, ServerBusyError),
        (503, ServerBusyError),
        (504, ServerBusyError),
        (505, RejectedError),
        (599, ServerBusyError),
    ],
)
async def test_api_status_mapping(api: ServiceApi, web: Any, status: int, kind: type) -> None:
    """Each error status of the API raises one type of error, with the status and the text of the server."""
    web.get(f"{HOST}/tags/", status=status, payload={"detail": "the reason"}, headers={"Retry-After": "4"})
    error = await failure(api.list_tags())
    assert type(error) is kind
    assert (error.status, error.detail, error.retry_after_s) == (status, "the reason", 4.0)
    for part in ("Could not list the tags", HOST, f"HTTP {status}", "the reason"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, "<Error><Code>RequestTimeout</Code></Error>", ServerBusyError),
        (400, "<Error><Code>ExpiredToken</Code></Error>", UrlExpiredError),
        (400, "<Error><Code>BadDigest</Code></Error>", RejectedError),
        (400, "RequestTimeout", RejectedError),
        (403, "<Error><Code>AccessDenied</Code></Error>", UrlExpiredError),
        (404, "", NotFoundError),
        (409, "", ConflictError),
        (202, "", ServerBusyError),
        (206, "", ServerBusyError),
        (302, "", RejectedError),
        (500, "", ServerBusyError),
    ],
)
async def test_put_status_mapping(api: ServiceApi, web: Any, status: int, body: str, kind: type) -> None:
    """A 403 for a PUT means a new URL, a stall of S3 is transient, and only 200, 201 and 204 mean stored."""
    web.put(SIGNED, status=status, body=body)
    error = await failure(api.put_shard(SIGNED, [b"x"], 1, crc32c=0))
    assert type(error) is kind
    assert "SIGNATURE" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "never_sent"),
    [
        (aiohttp.ServerDisconnectedError(), ConnectionFailedError, False),
        (aiohttp.ClientOSError(104, "reset"), ConnectionFailedError, False),
        (aiohttp.ClientPayloadError("cut"), ConnectionFailedError, False),
        (aiohttp.SocketTimeoutError(f"reading {SIGNED}"), ConnectionFailedError, False),
        (TimeoutError(), ConnectionFailedError, False),
        (aiohttp.ConnectionTimeoutError(f"to {SIGNED}"), ConnectionFailedError, True),
    ],
)
async def test_broken_connections(
    api: ServiceApi, web: Any, error: Exception, kind: type, never_sent: bool
) -> None:
    """A failed connection is distinguished from a broken one, and no message contains a signature."""
    web.put(SIGNED, exception=error)
    ours = await failure(api.put_shard(SIGNED, [b"x"], 1, crc32c=0))
    assert type(ours) is kind
    assert getattr(ours, "never_sent", None) is never_sent
    chain = repr((ours, str(ours), ours.__cause__, ours.__context__))
    assert "SIGNATURE" not in chain


@pytest.mark.parametrize("body", ["", "<html>", "{", "null", "[1]", '[{"id": 1, "name": "x"}]', "[" * 50_000])
async def test_invalid_success_is_transient(api: ServiceApi, web: Any, body: str) -> None:
    """A 2xx reply with an invalid body is a transient error with a clear message."""
    web.get(f"{HOST}/tags/", body=body)
    error = await failure(api.list_tags())
    assert type(error) is ServerBusyError
    assert "not with what was asked for" in str(error)


@pytest.mark.parametrize(
    ("call", "route", "body"),
    [
        (lambda api: api.create_stream(NewStreamBody("n", 1.0, 0.0)), "/rheed/stream/", '{"id": "x"}'),
        (lambda api: api.create_sample("n"), "/physical_samples/", '"x"'),
        (lambda api: api.create_tag("n"), "/tags/", '{"id": ""}'),
    ],
)
async def test_invalid_replies_to_creations(
    api: ServiceApi, web: Any, call: Callable[[ServiceApi], Awaitable[object]], route: str, body: str
) -> None:
    """A creation without an id in its reply is an error."""
    web.post(HOST + route, body=body)
    assert type(await failure(call(api))) is ServerBusyError


@pytest.mark.parametrize(
    "body",
    [
        '{"receivedAtUnixMs": NaN, "transmittedAtUnixMs": 1}',
        '{"receivedAtUnixMs": "1", "transmittedAtUnixMs": 1}',
        '{"receivedAtUnixMs": true, "transmittedAtUnixMs": 1}',
        '{"receivedAtUnixMs": 1}',
        f'{{"receivedAtUnixMs": {10**400}, "transmittedAtUnixMs": 1}}',
        '{"receivedAtUnixMs": 1e999, "transmittedAtUnixMs": 1}',
    ],
)
async def test_times_must_be_finite(api: ServiceApi, web: Any, body: str) -> None:
    """NaN, text and infinity are rejected as reference time."""
    web.get(f"{HOST}/gateway/time", body=body)
    assert type(await failure(api.gateway_time())) is ServerBusyError


async def test_the_key_is_never_in_an_error(api: ServiceApi, web: Any) -> None:
    """If a server repeats the key, neither message nor detail contains it."""
    web.get(f"{HOST}/tags/", status=401, payload={"detail": f"unknown key {KEY}"})
    error = await failure(api.list_tags())
    assert KEY not in str(error) + repr(error.detail)
    assert "ATOMSTREAM_API_KEY" in str(error)


async def test_lists_are_parsed(api: ServiceApi, web: Any) -> None:
    """Samples, tags and projects are returned with id and name. Other keys are ignored; null names become empty."""
    rows = [{"id": "a", "name": "Wafer", "owner_name": "x"}, {"id": "b", "name": None}]
    for path in ("physical_samples", "tags", "projects"):
        web.get(f"{HOST}/{path}/", payload=rows)
    expected = [NamedItem("a", "Wafer"), NamedItem("b", "")]
    assert [await api.list_samples(), await api.list_tags(), await api.list_projects()] == [expected] * 3


async def test_conflict_has_the_detail(api: ServiceApi, web: Any) -> None:
    """The error for an existing sample name contains the id of that sample."""
    web.post(f"{HOST}/physical_samples/", status=409, payload={"detail": {"physical_sample_id": "s"}})
    assert (await failure(api.create_sample("n"))).detail == {"physical_sample_id": "s"}


async def test_end_accepts_any_success(api: ServiceApi, web: Any) -> None:
    """Any reply with a success status confirms the end of a stream, also an empty one."""
    web.post(f"{HOST}/rheed/stream/d/end", status=204)
    await api.end_stream("d")


async def test_too_many_losses_still_fit_a_header(api: ServiceApi, web: Any) -> None:
    """The header of lost chunks stays below the limit of servers and is cut between two indices."""
    url = f"{HOST}/rheed/stream/d/end"
    web.post(url, payload={})
    await api.end_stream("d", range(0, 20_000, 2), announced=True)
    [[request]] = web.requests.values()
    header = request.kwargs["headers"]["Atomstream-Lost"]
    assert len(header) <= 6000
    assert header.split(",") == [str(k) for k in range(0, 2 * len(header.split(",")), 2)]


async def test_calls_after_close_raise(api: ServiceApi) -> None:
    """A second close has no effect; a call afterwards raises a clear error."""
    await api.close()
    await api.close()
    with pytest.raises(ClosedError):
        await api.list_tags()
