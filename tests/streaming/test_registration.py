"""Registration of a stream: arguments are checked, sample and tags found or created, the stream created and linked."""

from __future__ import annotations

import json
import socket
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import (
    AtomstreamError,
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    LinkError,
    NotFoundError,
    ServerBusyError,
    ServiceError,
)
from atomstream.protocol import normalized_name
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import NamedItem
from atomstream.streaming.registration import (
    ATTEMPTS,
    StreamRegistration,
    match,
    register,
)
from atomstream.streaming.stream_request import InitializeRequest, default_name
from tests.service.recorder import Recorder, calling, recording

PROJECT = "7d3c4a0e-5a56-4b7e-9b1f-5d6f4c1e2a90"
LINKS = {
    "sample": "POST /data_entries/physical_sample",
    "tags": "POST /tags/data-items/",
    "tracking": f"POST /projects/{PROJECT}/configuration/tracking_samples",
}


class Service:
    """A catalogue with the service's rules, behind real HTTP; single routes can be made to fail."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.samples: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.streams: list[str] = []
        self.slept: list[float] = []
        recorder.on("GET /physical_samples/", lambda *_: self._listing(self.samples))
        recorder.on("GET /tags/", lambda *_: self._listing(self.tags))
        recorder.on("POST /physical_samples/", lambda _, body: self._new_sample(json.loads(body)["name"]))
        recorder.on("POST /tags/", lambda _, body: self._new_tag(json.loads(body)["name"]))
        recorder.on("POST /rheed/stream/", lambda *_: self._new_stream())
        for route in LINKS.values():
            recorder.on_json(route, {})

    def _listing(self, table: dict[str, str]) -> web.Response:
        return web.json_response([{"id": key, "name": name} for key, name in table.items()])

    def _new_sample(self, name: str) -> web.Response:
        for key, taken in self.samples.items():
            if taken.strip().lower() == name.strip().lower():
                return web.json_response({"detail": {"physical_sample_id": key}}, status=409)
        return self._insert(self.samples, name)

    def _new_tag(self, name: str) -> web.Response:
        if name in self.tags.values():
            return web.json_response({"detail": "duplicate"}, status=400)
        return self._insert(self.tags, name)

    def _insert(self, table: dict[str, str], name: str) -> web.Response:
        table[key := str(uuid.uuid4())] = name
        return web.json_response({"id": key})

    def _new_stream(self) -> web.Response:
        self.streams.append(str(uuid.uuid4()))
        self.recorder.on_json(f"POST /rheed/stream/{self.streams[-1]}/end", {})
        return web.json_response(self.streams[-1])

    def fails(self, route: str, times: int, status: int = 503, **headers: str) -> None:
        """Answer ``route`` with an error ``times`` times, then as before."""
        healthy, left = self.recorder.answers[route], [times]

        def answer(request: web.Request, body: bytes) -> Any:
            left[0] -= 1
            if left[0] < 0:
                return healthy(request, body)
            return web.json_response({"detail": "scripted"}, status=status, headers=headers)

        self.recorder.on(route, answer)

    def breaks_after(self, route: str) -> None:
        """Do what ``route`` asks, but lose the first answer."""
        healthy, left = self.recorder.answers[route], [1]

        def answer(request: web.Request, body: bytes) -> Any:
            left[0] -= 1
            reply = healthy(request, body)
            if left[0] == 0:
                assert request.transport is not None
                request.transport.abort()
            return reply

        self.recorder.on(route, answer)

    def bodies(self, route: str) -> list[dict[str, Any]]:
        """What was posted to ``route``."""
        method, path = route.split(" ")
        return [
            json.loads(one.body)
            for one in self.recorder.requests
            if (one.method, one.path) == (method, path) and one.body
        ]

    async def sleep(self, seconds: float) -> None:
        """Returns at once, and appends the requested time to ``slept``."""
        self.slept.append(seconds)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with an empty catalogue."""
    async with recording() as recorder:
        yield Service(recorder)


@pytest.fixture
async def api(service: Service) -> AsyncIterator[ServiceApi]:
    """The client of that service."""
    async with calling(service.recorder.url) as api:
        yield api


async def registered(api: ServiceApi, service: Service, **more: Any) -> StreamRegistration:
    """Register a stationary stream with 2 s chunks."""
    request = InitializeRequest(10.0, more.pop("rpm", 0.0), 20, **more)
    return await register(api, request, sleep=service.sleep)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"fps": 0.0}, ConfigError, "fps"),
        ({"fps": -1.0}, ConfigError, "fps"),
        ({"fps": float("nan")}, ConfigError, "fps"),
        ({"fps": float("inf")}, ConfigError, "fps"),
        ({"fps": "120"}, TypeError, "fps"),
        ({"fps": True}, TypeError, "fps"),
        ({"rotations_per_min": -1.0}, ConfigError, "rotations_per_min"),
        ({"rotations_per_min": float("nan")}, ConfigError, "rotations_per_min"),
        ({"rotations_per_min": None}, TypeError, "rotations_per_min"),
        ({"chunk_size": 0}, ConfigError, "chunk_size"),
        ({"chunk_size": 240.0}, TypeError, "chunk_size"),
        ({"stream_name": ""}, ConfigError, "stream_name is empty"),
        ({"stream_name": 7}, TypeError, "stream_name"),
        ({"stream_name": "\ud800"}, ConfigError, "surrogate"),
        ({"physical_sample": " \t"}, ConfigError, "physical_sample is empty"),
        ({"physical_sample": 7}, TypeError, "physical_sample"),
        ({"project_id": ""}, ConfigError, "project_id is empty"),
        ({"project_id": b"x"}, TypeError, "project_id"),
        ({"tags": "night shift"}, TypeError, "list of str"),
        ({"tags": 3}, TypeError, "list of str"),
        ({"tags": ["ok", ""]}, ConfigError, "a tag is empty"),
        ({"tags": ["ok", None]}, TypeError, "a tag"),
        ({"azimuth": ""}, ConfigError, "azimuth is empty"),
        ({"azimuth": 110}, TypeError, "azimuth"),
        ({"azimuth": "110", "rotations_per_min": 15.0}, ConfigError, "stationary"),
    ],
)
async def test_wrong_arguments_send_nothing(
    api: ServiceApi, service: Service, change: dict[str, Any], kind: type, message: str
) -> None:
    """Each invalid argument is an error that names it, before any request."""
    arguments = {"fps": 10.0, "rotations_per_min": 0.0, "chunk_size": 20} | change
    with pytest.raises(kind, match=message):
        await register(api, InitializeRequest(**arguments))
    assert service.recorder.requests == []


def test_numpy_numbers_are_numbers() -> None:
    """What comes out of an array of settings is taken as the number it is."""
    checked = InitializeRequest(np.float32(10), np.int64(0), np.int16(20)).checked()
    assert (type(checked.fps), type(checked.rpm), type(checked.chunk_size)) == (float, float, int)


def test_short_chunks_warn_of_the_hosted_rule() -> None:
    """Below 2 s of frames a warning names the hosted service's rule and a sufficient size; at 2 s there is none."""
    with pytest.warns(
        UserWarning, match=r"0\.0992 s .* hosted service requires at least 2 s \(chunk_size=242\)"
    ):
        InitializeRequest(121.0, 0.0, 12).warn_if_short(stacklevel=1)
    InitializeRequest(120.0, 0.0, 240).warn_if_short(stacklevel=1)


@pytest.mark.parametrize(
    ("hour", "minute", "name"),
    [(0, 5, "12:05AM"), (9, 59, "9:59AM"), (12, 0, "12:00PM"), (16, 41, "4:41PM"), (23, 1, "11:01PM")],
)
def test_default_name(hour: int, minute: int, name: str) -> None:
    """A stream without a name is named by the time, without a leading zero on any platform."""
    assert default_name(datetime(2030, 1, 1, hour, minute)) == f"RHEED Stream @ {name}"


async def test_plain_stream_is_one_request(api: ServiceApi, service: Service) -> None:
    """Without sample and tags nothing is listed and nothing linked."""
    result = await registered(api, service, stream_name="Run 7")
    assert service.recorder.routes() == ["POST /rheed/stream/"]
    assert result.spec.data_id == service.streams[0]
    assert (result.spec.name, result.spec.announced, result.spec.chunk_size) == ("Run 7", False, 20)


async def test_project_alone_goes_with_the_stream_only(api: ServiceApi, service: Service) -> None:
    """A project without a sample is named at creation, and its tracking is left alone."""
    await registered(api, service, project_id=f" {PROJECT}\n")
    assert service.recorder.routes() == ["POST /rheed/stream/"]
    assert service.bodies("POST /rheed/stream/")[0]["project_id"] == PROJECT


async def test_existing_names_are_found(api: ServiceApi, service: Service) -> None:
    """Sample and tags are matched ignoring case, blanks and composition; nothing new is created."""
    service.samples = {"s0": "Other", "s1": "  wAFER-Å1 "}
    service.tags = {"t0": "GaN", "t1": "Night Shift"}
    wanted = unicodedata.normalize("NFD", "Wafer-å1")
    result = await registered(
        api, service, physical_sample=wanted, tags=["night shift", " gan"], project_id=PROJECT
    )
    assert (result.sample_id, result.tag_ids) == ("s1", ("t1", "t0"))
    data_id = result.spec.data_id
    assert service.bodies(LINKS["sample"]) == [{"data_ids": [data_id], "physical_sample_id": "s1"}]
    assert service.bodies(LINKS["tags"]) == [{"data_ids": [data_id], "tag_ids": ["t1", "t0"]}]
    assert service.bodies(LINKS["tracking"]) == [{"physical_sample_id": "s1", "set_active": True}]
    assert (len(service.samples), len(service.tags)) == (2, 2)


async def test_missing_names_are_created_once(api: ServiceApi, service: Service) -> None:
    """A missing sample or tag is created without outer blanks; a tag that is passed twice is one tag."""
    result = await registered(api, service, physical_sample=" Wafer ", tags=["a", "B", "A ", "b"])
    assert list(service.samples.values()) == ["Wafer"]
    assert list(service.tags.values()) == ["a", "B"]
    assert result.tag_ids == tuple(service.tags)


async def test_uuids_are_found_by_id(api: ServiceApi, service: Service) -> None:
    """A UUID, as a text in upper or lower case or as a UUID object, selects the item with this id."""
    sample, tag = uuid.uuid4(), uuid.uuid4()
    service.samples, service.tags = {str(sample): "x"}, {str(tag): "y"}
    result = await registered(api, service, physical_sample=str(sample).upper(), tags=[tag])
    assert (result.sample_id, result.tag_ids) == (str(sample), (str(tag),))


@pytest.mark.parametrize("which", ["physical_sample", "tags"])
async def test_unknown_uuid_creates_nothing(api: ServiceApi, service: Service, which: str) -> None:
    """An unknown UUID raises an error; no sample, tag or stream is created."""
    unknown = str(uuid.uuid4())
    wanted: dict[str, Any] = {"physical_sample": "new", "tags": ["new", unknown]}
    if which == "physical_sample":
        wanted = {"physical_sample": unknown, "tags": ["new"]}
    with pytest.raises(NotFoundError, match=f"UUID {unknown}.*Nothing was created"):
        await registered(api, service, **wanted)
    assert not any(route.startswith("POST") for route in service.recorder.routes())


async def test_exact_spelling_wins() -> None:
    """Of two names that differ only in case, the equal spelling is chosen, else the first."""
    known = [NamedItem("1", "wafer"), NamedItem("2", "Wafer")]
    assert [match(name, known) for name in ("Wafer", "wafer", "WAFER", "other")] == ["2", "1", "1", None]


@given(st.text(min_size=1))
def test_folding_is_stable(name: str) -> None:
    """A name matches itself however composed, blanked or folded."""
    assert normalized_name(normalized_name(name)) == normalized_name(name)
    assert normalized_name(f" {unicodedata.normalize('NFD', name)}\n") == normalized_name(name)


async def test_race_for_a_sample_ends_with_one(api: ServiceApi, service: Service) -> None:
    """If another computer creates the sample between look-up and creation, its sample is used."""
    service.samples = {"theirs": "wafer"}
    service.recorder.on_json("GET /physical_samples/", [])
    assert (await registered(api, service, physical_sample="Wafer")).sample_id == "theirs"
    assert list(service.samples) == ["theirs"]


async def test_a_race_without_a_detail_is_checked_again(api: ServiceApi, service: Service) -> None:
    """If the server reports that a name exists, without its id, the name is looked up again."""
    service.samples, service.tags = {"s": "wafer"}, {"t": "night"}
    listings = {route: service.recorder.answers[route] for route in ("GET /physical_samples/", "GET /tags/")}
    for route, listing in listings.items():
        answers = iter([lambda *_: web.json_response([]), listing])
        service.recorder.on(route, lambda *ask, answers=answers: next(answers)(*ask))
    service.recorder.on_json("POST /physical_samples/", {"detail": "taken"}, status=409)
    result = await registered(api, service, physical_sample="Wafer", tags=["night"])
    assert (result.sample_id, result.tag_ids) == ("s", ("t",))


async def test_refused_tag_that_is_not_taken_is_an_error(api: ServiceApi, service: Service) -> None:
    """A 400 that is not a duplicate is raised as it is, and no stream is created."""
    service.recorder.on_json("POST /tags/", {"detail": "too long"}, status=400)
    with pytest.raises(ServiceError, match="too long"):
        await registered(api, service, tags=["x"])
    assert service.streams == []


async def test_lost_answers_of_creations_end_with_one(api: ServiceApi, service: Service) -> None:
    """If the reply to the creation of a sample or tag is lost, the request is repeated, and the item exists once."""
    service.breaks_after("POST /physical_samples/")
    service.breaks_after("POST /tags/")
    result = await registered(api, service, physical_sample="Wafer", tags=["night"])
    assert ([result.sample_id], result.tag_ids) == (list(service.samples), tuple(service.tags))


async def test_lost_answer_of_the_stream_is_not_repeated(api: ServiceApi, service: Service) -> None:
    """The creation of the stream is never repeated where it may have been received."""
    service.breaks_after("POST /rheed/stream/")
    with pytest.raises(ConnectionFailedError):
        await registered(api, service)
    assert len(service.streams) == 1


async def test_unreached_server_is_tried_a_few_times(service: Service) -> None:
    """Without a server the creation is tried four times, because it was certainly not received."""
    tried = []

    class Counting(ServiceApi):
        async def create_stream(self, new: Any) -> Any:
            tried.append(new)
            return await super().create_stream(new)

    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    api = Counting(url, "k", request_timeout_s=5, upload_timeout_s=5, connections=1)
    with pytest.raises(ConnectionFailedError, match=f"no connection to {url}"):
        await registered(api, service)
    await api.close()
    assert len(tried) == ATTEMPTS
    assert len(service.slept) == ATTEMPTS - 1
    assert all(0 <= slept <= 2.0 for slept in service.slept)


@pytest.mark.parametrize("route", ["GET /physical_samples/", "POST /physical_samples/", *LINKS.values()])
async def test_passing_faults_are_passed_over(api: ServiceApi, service: Service, route: str) -> None:
    """Three failures of a repeatable request are retried, and everything is linked in the end."""
    service.fails(route, ATTEMPTS - 1)
    result = await registered(api, service, physical_sample="w", tags=["t"], project_id=PROJECT)
    assert [len(service.bodies(link)) >= 1 for link in LINKS.values()] == [True] * 3
    assert service.streams == [result.spec.data_id]


async def test_a_long_retry_after_is_an_error_at_once(api: ServiceApi, service: Service) -> None:
    """A Retry-After of minutes raises an error at once, instead of a silent wait."""
    service.fails("GET /tags/", 1, 503, **{"Retry-After": "120"})
    with pytest.raises(ServerBusyError):
        await registered(api, service, tags=["t"])
    assert service.slept == []


async def test_a_wrong_key_is_an_error_at_once(api: ServiceApi, service: Service) -> None:
    """A refused key raises an error after one request."""
    service.recorder.on_json("POST /rheed/stream/", {"detail": "Invalid API key"}, status=401)
    with pytest.raises(AuthenticationError, match=r"HTTP 401 \(Invalid API key\). Check the API key"):
        await registered(api, service)
    assert len(service.recorder.requests) == 1


@pytest.mark.parametrize("which", list(LINKS))
async def test_failed_link_ends_the_stream(api: ServiceApi, service: Service, which: str) -> None:
    """If linking is refused, the new stream is ended; the error has its data_id and the reason."""
    service.fails(LINKS[which], 100, 422)
    with pytest.raises(LinkError, match="it has been ended") as caught:
        await registered(api, service, physical_sample="w", tags=["t"], project_id=PROJECT)
    [data_id] = service.streams
    assert caught.value.data_id == data_id
    assert data_id in str(caught.value)
    assert "scripted" in str(caught.value)
    assert service.recorder.routes()[-1] == f"POST /rheed/stream/{data_id}/end"


async def test_stream_that_can_not_be_ended_either(api: ServiceApi, service: Service) -> None:
    """If ending the stream fails too, the error has both reasons and the data_id, and the retries are limited."""
    service.fails(LINKS["tags"], 100, 422)
    new_stream: Callable[..., Any] = service.recorder.answers["POST /rheed/stream/"]

    def then_break(*ask: Any) -> Any:
        reply = new_stream(*ask)
        service.fails(f"POST /rheed/stream/{service.streams[-1]}/end", 100, 500)
        return reply

    service.recorder.on("POST /rheed/stream/", then_break)
    with pytest.raises(LinkError, match="failed too") as caught:
        await registered(api, service, tags=["t"])
    assert isinstance(caught.value, AtomstreamError)
    assert caught.value.data_id == service.streams[0]
