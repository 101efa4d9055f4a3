"""Sign-in by password and by login link: the limits on guesses, and which people are locked out by them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atomstream.server.dashboard import sign_in
from atomstream.server.dashboard.password_check import AT_ONCE, MAX_WAITING, MAX_WRONG
from atomstream.server.people.records import Actor
from atomstream.server.people.store import MAX_LINKS, People
from tests.live_server import LiveServer, Serve
from tests.server.dashboard.test_login import browser, status_of
from tests.wire_client import WireClient

pytestmark = pytest.mark.usefixtures("cheap_hash")
ACTOR = Actor("test", "command line")
PASSWORD = "correct horse battery"


async def with_anna(serve: Serve) -> LiveServer:
    """A server on which anna is an operator."""
    server = await serve()
    people = People(server.data_dir)
    people.add_user(ACTOR, "Anna", "operator", password=PASSWORD)
    return server


def login(name: str = "anna", password: str = PASSWORD) -> dict[str, str]:
    """The body of a login."""
    return {"name": name, "password": password}


async def test_a_password_opens_a_session(serve: Serve) -> None:
    """With name and password a person is logged in, with their own right, until the password changes."""
    server = await with_anna(serve)
    async with browser(server) as session:
        async with session.get("/session/ways") as reply:
            assert await reply.json() == {"password": True, "oidc": None, "session": False}
        assert await status_of(session, "POST", "/session", json=login(" ANNA ")) == 204
        async with session.get("/session/ways") as reply:
            assert (await reply.json())["session"]
        async with session.get("/session") as reply:
            shown = await reply.json()
        assert (shown["name"], shown["right"], shown["person"]) == ("Anna", "write", True)
        stream = "/rheed/stream/11111111-1111-4111-8111-111111111111"
        assert await status_of(session, "DELETE", stream) == 403
        People(server.data_dir).set_user(ACTOR, "anna", password="another horse battery")
        while await status_of(session, "GET", "/session") == 200:
            pass
        assert await status_of(session, "POST", "/session", json=login()) == 401


async def test_without_people_a_key_is_the_only_way(serve: Serve) -> None:
    """A server with one key states that it has no people, and refuses passwords."""
    server = await serve()
    async with browser(server) as session:
        async with session.get("/session/ways") as reply:
            assert await reply.json() == {"password": False, "oidc": None, "session": False}
        assert await status_of(session, "POST", "/session", json=login()) == 401
    assert not (server.data_dir / "people.jsonl").exists()


@pytest.mark.parametrize("body", [login("bob"), login(password="wrong"), login(""), login(password="")])
async def test_a_refusal_does_not_show_its_reason(serve: Serve, body: dict[str, str]) -> None:
    """An unknown name and a wrong password get the same answer."""
    server = await with_anna(serve)
    async with browser(server) as session, session.post("/session", json=body) as reply:
        assert (reply.status, (await reply.json())["detail"]) == (401, "Name or password is wrong.")


async def test_guesses_are_limited(serve: Serve) -> None:
    """After ten wrong ones a minute even the right password is not checked; a key, a link and a known browser are."""
    server = await with_anna(serve)
    token = People(server.data_dir).link_for(ACTOR, "anna")
    async with browser(server) as known, browser(server) as stranger, browser(server) as other:
        assert await status_of(known, "POST", "/session", json=login()) == 204
        statuses = await asyncio.gather(
            *(
                status_of(stranger, "POST", "/session", json=login(password=f"guess number {number}"))
                for number in range(3 * MAX_WRONG)
            )
        )
        assert statuses.count(401) <= MAX_WRONG
        assert set(statuses) <= {401, 429, 503}
        for number in range(MAX_WRONG):
            await status_of(stranger, "POST", "/session", json=login(password=f"guess number {number}"))
        async with stranger.post("/session", json=login()) as reply:
            assert reply.status == 429
            assert int(reply.headers["Retry-After"]) > 0
        assert await status_of(known, "POST", "/session", json=login()) == 204
        assert await status_of(other, "POST", "/session", json={"key": server.api_key}) == 204
        assert await status_of(other, "POST", "/session", json={"link": token}) == 204
        assert await status_of(other, "POST", "/session", json={"link": token}) == 401


async def test_right_passwords_are_not_counted(serve: Serve) -> None:
    """A person who signs in often is not delayed."""
    server = await with_anna(serve)
    for _ in range(MAX_WRONG + 2):
        async with browser(server) as session:
            assert await status_of(session, "POST", "/session", json=login()) == 204


async def test_a_browser_is_trusted_for_one_person_only(serve: Serve) -> None:
    """The cookie of a known browser gives no further guesses for other names, and can't be changed."""
    server = await with_anna(serve)
    People(server.data_dir).add_user(ACTOR, "Bob", "admin", password="some other password")
    async with browser(server) as session:
        assert await status_of(session, "POST", "/session", json=login()) == 204
        (cookie,) = [one for one in session.cookie_jar if one.key.startswith("atomstream_browser")]
        assert cookie["httponly"]
        for _ in range(MAX_WRONG):
            assert await status_of(session, "POST", "/session", json=login("bob", "wrong")) == 401
        assert await status_of(session, "POST", "/session", json=login("bob", "some other password")) == 429
        user, nonce, signature = cookie.value.split(".")
        forged = f"{user}.{nonce[::-1]}.{signature}"
        headers = {"Cookie": f"{cookie.key}={forged}"}
    async with browser(server, **headers) as session:
        assert await status_of(session, "POST", "/session", json=login()) == 429


async def test_few_passwords_are_checked_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign-ins beyond those that wait are refused at once, and cost neither memory nor time."""
    may_end, running, most = threading.Event(), [0], [0]

    def slow(_stored: str | None, _password: str) -> bool:
        running[0] += 1
        most[0] = max(most[0], running[0])
        may_end.wait(60)
        running[0] -= 1
        return False

    monkeypatch.setattr("atomstream.server.dashboard.password_check.MAX_WRONG", 10_000)
    monkeypatch.setattr("atomstream.server.dashboard.password_check.is_password", slow)
    server = await with_anna(serve)
    async with browser(server) as session:
        names = [login(f"somebody {number}") for number in range(MAX_WAITING + 10)]
        tries = [asyncio.create_task(status_of(session, "POST", "/session", json=one)) for one in names]
        refused = asyncio.as_completed(tries)
        assert [await next(refused) for _ in range(10)] == [503] * 10
        may_end.set()
        assert sorted(await asyncio.gather(*tries)) == [401] * MAX_WAITING + [503] * 10
    assert most[0] <= AT_ONCE


async def test_a_key_makes_a_link_for_itself(serve: Serve) -> None:
    """A program with a key opens a browser that is logged in as itself, with no more rights."""
    server = await serve()
    people = People(server.data_dir)
    made = people.create_key(ACTOR, "read", instrument="MBE 3")
    for key, right in ((server.api_key, "admin"), (made.secret, "read")):
        async with WireClient(server, headers={"X-API-KEY": key}) as client, browser(server) as session:
            status, reply = await client.ask("POST", "/session/links")
            assert status == 200
            token = reply["path"].removeprefix("/login#link=")
            assert await status_of(session, "POST", "/session", json={"link": token}) == 204
            async with session.get("/session") as shown:
                assert (await shown.json())["right"] == right
            assert await status_of(session, "POST", "/session/links") == 401


async def test_a_key_fills_no_log_by_signing_in(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links and sessions are lines of the audit log for ever: a key that may only read makes a few a minute."""
    monkeypatch.setattr(sign_in, "MAX_SIGN_INS", 3)
    server = await serve()
    made = People(server.data_dir).create_key(ACTOR, "read", instrument="MBE 3")
    async with WireClient(server, headers={"X-API-KEY": made.secret}) as client, browser(server) as session:
        links = [await client.ask("POST", "/session/links") for _ in range(MAX_LINKS + 2)]
        assert [status for status, _ in links] == [200] * MAX_LINKS + [429] * 2
        assert "were not used yet" in links[-1][1]["detail"]
        login = {"key": made.secret}
        tries = [await status_of(session, "POST", "/session", json=login) for _ in range(5)]
        assert tries == [204] * 3 + [429] * 2
        assert await status_of(session, "GET", "/session") == 200
        assert await status_of(session, "POST", "/session", json={"key": server.api_key}) == 204
        token = links[0][1]["path"].removeprefix("/login#link=")
        assert People(server.data_dir).use_link(ACTOR, token)
        assert (await client.ask("POST", "/session/links"))[0] == 200


async def test_changing_the_own_password(serve: Serve) -> None:
    """The old password is needed; other sessions end, this one goes on."""
    server = await with_anna(serve)
    async with browser(server) as here, browser(server) as there:
        for session in (here, there):
            assert await status_of(session, "POST", "/session", json=login()) == 204
        path = "/session/password"
        wrong = {"old": "wrong", "new": "another horse battery"}
        assert await status_of(here, "POST", path, json=wrong) == 401
        assert await status_of(here, "POST", path, json={"old": PASSWORD, "new": "short"}) == 400
        assert await status_of(here, "POST", path, json={"old": PASSWORD, "new": wrong["new"]}) == 204
        assert await status_of(here, "GET", "/session") == 200
        assert await status_of(there, "GET", "/session") == 401
        assert await status_of(there, "POST", "/session", json=login(password=wrong["new"])) == 204


async def test_nothing_secret_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither passwords nor tokens come into the log; a wrong one is one line with the address."""
    caplog.set_level("DEBUG")
    server = await with_anna(serve)
    token = People(server.data_dir).link_for(ACTOR, "anna")
    async with browser(server) as session:
        assert await status_of(session, "POST", "/session", json=login(password="some other guess")) == 401
        assert await status_of(session, "POST", "/session", json=login()) == 204
        assert await status_of(session, "POST", "/session", json={"link": token}) == 204
    for secret in (PASSWORD, "some other guess", token):
        assert secret not in caplog.text
    assert "signed in by password by Anna (browser) from 127.0.0.1" in caplog.text
    assert caplog.text.count("a wrong password was refused") == 1
