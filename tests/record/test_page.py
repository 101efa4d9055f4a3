"""The HTTP server of the capture page: who may use it, what it refuses, and that its requests have their effect."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from atomstream.cameras import CameraFrame
from atomstream.record.picture import SATURATED, encoded
from atomstream.record.recorder import Recorder
from atomstream.record.states import RecorderState
from atomstream.record.web import app
from atomstream.record.web.app import listen, serving, url_of
from atomstream.record.web.sessions import MAX_TRIES, RefusedError, Sessions
from tests.record.manual_camera import SHAPE, ManualCamera, pixels, recording_of, taken, until


@dataclass
class Page:
    """A page that is served, and a browser's side of it."""

    url: str
    sessions: Sessions
    http: aiohttp.ClientSession
    recorder: Recorder

    async def ask(
        self, path: str, body: Any = None, method: str = "", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request as the page sends it; ``headers`` replace those of the page."""
        sent = {"Origin": self.url, "Content-Type": "application/json", **headers}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        verb = method or ("GET" if body is None else "POST")
        sent = {name.replace("_", "-"): value for name, value in sent.items() if value}
        async with self.http.request(verb, self.url + path, data=data, headers=sent) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if reply.content_type == "application/json" else {}

    async def log_in(self) -> None:
        """Use a login link."""
        link = self.sessions.make_link().partition("=")[2]
        assert (await self.ask("/session", {"link": link}))[0] == 200


@asynccontextmanager
async def page_of(recorder: Recorder) -> AsyncIterator[Page]:
    """The page of a recorder."""
    listening = listen(0)
    jar = aiohttp.CookieJar(unsafe=True)
    async with serving(listening, recorder) as sessions, aiohttp.ClientSession(cookie_jar=jar) as http:
        yield Page(url_of(listening), sessions, http, recorder)


async def test_who_may_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only browsers that were opened by the link, or log in with the key; no other host, site or program."""
    async with recording_of(tmp_path, ManualCamera(), monkeypatch) as recorder, page_of(recorder) as page:
        assert page.url.startswith("http://127.0.0.1:")
        for path in ("/", "/login", "/record/static/js/record.js", "/dashboard/static/css/base.css"):
            assert (await page.ask(path))[0] == 200  # no data
        async with page.http.get(page.url, headers={"Accept": "text/html"}) as reply:
            assert reply.url.path == "/login"
        for path in ("/record/sources", "/record/state", "/record/pictures", "/nowhere"):
            assert (await page.ask(path))[0] == 401
        for path in ("/record/start", "/record/stop", "/record/source", "/record/marks"):
            assert (await page.ask(path, {}))[0] == 401
        link = page.sessions.make_link().partition("=")[2]
        assert (await page.ask("/session", {"key": "rec_wrong"}))[0] == 401
        assert (await page.ask("/session", {"link": link}, Origin="http://evil.example"))[0] == 403
        assert (await page.ask("/session", {"link": link}))[0] == 200
        assert (await page.ask("/session", {"link": link}))[0] == 401  # once
        assert (await page.ask("/session"))[0] == 200
        assert (await page.ask("/session", {"key": page.sessions.key}))[0] == 200
        async with page.http.get(page.url, headers={"Accept": "text/html"}) as reply:
            assert reply.url.path == "/"
        refused = {
            "another site": {"Origin": "http://evil.example"},
            "another port of this computer": {"Origin": "http://127.0.0.1:1"},
            "no origin": {"Origin": ""},
            "another name (DNS rebinding)": {"Host": "evil.example"},
            "another site, by Fetch metadata": {"Sec_Fetch_Site": "cross-site"},
        }
        for what, headers in refused.items():
            assert (await page.ask("/record/marks", {"label": "x"}, **headers))[0] == 403, what
        assert (await page.ask("/record/state", Host="evil.example"))[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await page.http.ws_connect(f"{page.url}/record/state", origin="http://evil.example")
        assert list(recorder.early_marks) == []
        assert (await page.ask("/session", None, "DELETE"))[0] == 204
        assert (await page.ask("/session"))[0] == 401


async def test_a_link_that_another_user_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line of the browser shows it to all users of the computer: it is refused to them, and stays valid."""
    async with recording_of(tmp_path, ManualCamera(), monkeypatch) as recorder, page_of(recorder) as page:
        link = page.sessions.make_link().partition("=")[2]
        with monkeypatch.context() as patch:
            patch.setattr(app, "is_other_user", lambda own, peer: own[1] != peer[1])
            status, reply = await page.ask("/session", {"link": link})
            assert (status, "Another user" in reply["detail"]) == (403, True)
            assert (await page.ask("/session"))[0] == 401
        assert (await page.ask("/session", {"link": link}))[0] == 200


def test_too_many_wrong_keys() -> None:
    """After too many wrong keys no key is accepted, and the message states that; used links are not counted."""
    sessions = Sessions()
    for _ in range(MAX_TRIES):
        with pytest.raises(RefusedError, match="was used already"):
            sessions.open("used", "")
    assert sessions.open("", sessions.key)
    for key in ("rec_wrong", "\ud800", *["x"] * (MAX_TRIES - 2)):
        with pytest.raises(RefusedError, match="is not the key"):
            sessions.open("", key)
    with pytest.raises(RefusedError, match="100 wrong keys were tried") as refused:
        sessions.open("", sessions.key)
    assert refused.value.status == 429
    assert sessions.open(sessions.make_link().partition("=")[2], "")


async def test_a_crop_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop that does not fit is refused with a sentence, and the camera continues as before."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder, page_of(recorder) as page:
        await page.log_in()
        status, reply = await page.ask("/record/source", {"source": "manual:0", "crop": [0, 0, 33, 5]})
        assert (status, "is not inside the 32x24 frame" in reply["detail"]) == (400, True)
        assert (await page.ask("/record/source", {"source": "manual:0", "crop": [4, 2, 8, 6]}))[0] == 200
        await taken(recorder, camera, 7)
        assert recorder.capture is not None
        assert recorder.capture.newest is not None
        assert np.array_equal(recorder.capture.newest.pixels, pixels(7)[2:8, 4:12])


INVALID: list[tuple[str, Any, int, str]] = [
    ("/record/start", b"{", 400, "not JSON"),
    ("/record/start", b"[" * 5000, 400, "not JSON"),
    ("/record/start", [1], 400, "not a JSON object"),
    ("/record/start", {"name": 7}, 400, "name must be a string"),
    ("/record/start", {"name": "x", "rpm": "fast"}, 400, "rpm must be a number"),
    ("/record/start", b'{"name": "x", "before_s": NaN}', 400, "before_s must be a number"),
    ("/record/start", {"name": "x", "before_s": -1}, 400, "before_s"),
    ("/record/start", {"name": ""}, 400, "empty"),
    ("/record/start", {"name": "x" * 300}, 400, "300 characters"),
    ("/record/start", {"name": "\ud800"}, 400, "invalid character"),
    ("/session", {"key": "\ud800"}, 400, "invalid character"),
    ("/record/source", {"source": "file:\udcff.npy"}, 400, "invalid character"),
    ("/record/start", b'{"name": "x", "rpm": 1' + b"0" * 400 + b"}", 400, "rpm must be a number"),
    ("/record/stop", {}, 409, "Nothing is being recorded"),
    ("/record/marks", {"label": " "}, 400, "label"),
    ("/record/marks", {"label": "x" * 201}, 400, "label"),
    ("/record/source", {}, 400, "Choose a source"),
    ("/record/source", {"source": "x", "crop": [0, 0, 1]}, 400, "crop"),
    ("/record/source", {"source": "x", "crop": [0, 0, 0, 1]}, 400, "crop"),
    ("/record/source", {"source": "x", "exposure_ms": 0}, 400, "exposure_ms"),
    ("/record/source", {"source": "x", "rotate": 45}, 400, "rotation"),
    ("/record/source", {"source": "x", "flip": "sideways"}, 400, "flip"),
    ("/record/marks", b"{" + b" " * 70_000 + b"}", 413, ""),
    ("/record/static/../recorder.py", None, 404, ""),
    ("/record/static/%2e%2e/recorder.py", None, 404, ""),
    ("/record/static/record.html", None, 404, ""),
]
"""Path, body, status and words of the sentence."""


async def test_invalid_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid requests are refused with a sentence, and change neither the camera nor the state."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder, page_of(recorder) as page:
        await page.log_in()
        for path, body, status, sentence in INVALID:
            found, reply = await page.ask(path, body)
            assert (found, sentence in reply.get("detail", "")) == (status, True), (path, body, reply)
        assert recorder.state is RecorderState.IDLE
        assert camera.opened == 1


async def test_record_pause_mark_and_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of the page's buttons have their effect, which the next state shows."""
    camera = ManualCamera()
    name = "<img src=x onerror=alert(1)> \u202e 成長 𝔊"
    async with recording_of(tmp_path, camera, monkeypatch) as recorder, page_of(recorder) as page:
        await page.log_in()
        await taken(recorder, camera, 0, 1)
        async with page.http.ws_connect(f"{page.url}/record/state", origin=page.url) as socket:
            first = json.loads(await socket.receive_str())
            assert (first["state"], first["camera"]["frames"]) == ("idle", 2)
            assert first["exposure"]["maximum"] == int(pixels(1).max())
            assert (await page.ask("/record/start", {"name": name, "before_s": 1000}))[0] == 200
            assert (await page.ask("/record/marks", {"label": "Ga shutter open", "time_ms": 1e12}))[1] == {
                "label": "Ga shutter open",
                "kind": "shutter",
                "time_ms": 1e12,
            }
            for path in ("pause", "resume", "stop"):
                assert (await page.ask(f"/record/{path}", {}))[0] == 200
            await until(recorder, lambda: recorder.state is RecorderState.IDLE)
            while True:
                values = json.loads(await socket.receive_str())
                if values["state"] == "idle" and values["recordings"]:
                    break
        assert values["recording"]["name"] == values["recordings"][0]["name"] == name.strip()
        assert values["recording"]["frames"] == values["recording"]["saved_frames"] == 2
        labels = [mark["label"] for mark in values["recording"]["marks"]]
        assert labels == ["Ga shutter open", "Recording paused", "Recording goes on"]


async def test_the_live_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question is answered by the newest frame; saturated pixels are marked, also in a picture that is shrunk."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder, page_of(recorder) as page:
        await page.log_in()
        async with page.http.ws_connect(f"{page.url}/record/pictures", origin=page.url) as socket:
            for number in (3, 4):
                await socket.send_str("{}")
                await taken(recorder, camera, number)
                shown = await socket.receive_bytes()
                time_s, frame, width, height, _, _ = struct.unpack_from("<dIIIII", shown)
                assert (frame, height, width) == (number, *SHAPE)
                assert time_s == pytest.approx(camera.time_ms(number) / 1000.0)
    large = np.full((2000, 1200), 1000, np.uint16)
    large[1500, 700] = 4095
    shown = encoded(CameraFrame(large, 1, 0.0), 4095)
    width, height = struct.unpack_from("<II", shown, 12)
    picture = np.frombuffer(shown[32:], np.uint8).reshape(height, width)
    assert (height, width) == (666, 400)
    assert picture[500, 233] == SATURATED
    assert np.count_nonzero(picture == SATURATED) == 1
    assert picture[0, 0] == 1000 * 254 // 4095
