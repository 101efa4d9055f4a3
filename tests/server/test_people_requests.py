"""The requests of the settings page: who may send them, what they answer, and that nothing secret is in the answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from atomstream.cli.console import JsonFormatter
from atomstream.server.people.records import Actor
from atomstream.server.people.store import People
from tests.live_server import Serve
from tests.server.dashboard.test_login import browser, status_of
from tests.wire_client import Address, WireClient

pytestmark = pytest.mark.usefixtures("cheap_hash")
ACTOR = Actor("test", "command line")
UNKNOWN = "99999999-9999-4999-8999-999999999999"


async def test_the_life_of_people_and_keys(serve: Serve) -> None:
    """Add, change, link, key, rotate, revoke, remove; the lists and the audit log show each step."""
    server = await serve()
    async with WireClient(server) as owner:
        _, project = await owner.ask("POST", "/projects/", {"name": "GaN"})
        anna = {"name": "Anna", "role": "admin", "password": "correct horse battery"}
        _, made = await owner.ask("POST", "/people/users", anna)
        bob = {"name": "Bob", "role": "viewer", "projects": [project["id"].upper()]}
        _, other = await owner.ask("POST", "/people/users", bob)
        change = {"role": "operator", "name": "Robert"}
        assert (await owner.ask("PATCH", f"/people/users/{other['id']}", change))[0] == 200
        _, link = await owner.ask("POST", f"/people/users/{other['id']}/link")
        _, key = await owner.ask("POST", "/people/keys", {"scope": "write", "user": "robert", "days": 30})
        async with WireClient(Address(server.url, key["key"])) as client:
            assert (await client.ask("GET", "/projects/"))[1][0]["name"] == "GaN"
            assert (await client.ask("GET", "/people"))[0] == 403
        _, listed = await owner.ask("GET", "/people")
        users = {user["name"]: user for user in listed["users"]}
        assert users["Robert"]["projects"] == [project["id"]]
        assert (users["Anna"]["password"], users["Robert"]["password"]) == (True, False)
        (shown,) = [one for one in listed["keys"] if one["id"] == key["id"]]
        assert (shown["owner"], shown["scope"], shown["used"] is not None) == ("Robert", "write", True)
        _, rotated = await owner.ask("POST", f"/people/keys/{key['id']}/rotate", {"overlap_s": 0})
        for one, status in ((key["key"], 401), (rotated["key"], 200)):
            async with WireClient(Address(server.url, one)) as client:
                assert (await client.ask("GET", "/projects/"))[0] == status
        assert (await owner.ask("DELETE", f"/people/keys/{rotated['id']}"))[0] == 200
        async with browser(server) as session:
            token = link["path"].removeprefix("/login#link=")
            assert await status_of(session, "POST", "/session", json={"link": token}) == 204
            assert (await owner.ask("DELETE", f"/people/users/{other['id']}"))[0] == 200
            assert await status_of(session, "GET", "/session") == 401
        status, reply = await owner.ask("DELETE", f"/people/users/{made['id']}")
        assert (status, "last administrator" in reply["detail"]) == (409, True)
        _, entries = await owner.ask("GET", "/people/audit?limit=5")
        assert entries[0]["done"] == "removed Robert"
        assert len(entries) == 5
        text = json.dumps([listed, entries])
        for secret in (key["key"], rotated["key"], token, "correct horse battery", "argon2"):
            assert secret not in text


REFUSED: list[tuple[str, str, Any, int]] = [
    ("POST", "/people/users", {"name": "anna", "role": "viewer"}, 409),
    ("POST", "/people/users", {"name": "x", "role": "boss"}, 409),
    ("POST", "/people/users", {"name": "x", "role": "viewer", "password": "short"}, 409),
    ("POST", "/people/users", {"name": "x", "role": "viewer", "projects": [UNKNOWN]}, 404),
    ("POST", "/people/users", {"name": "x", "role": "viewer", "projects": ["../x"]}, 400),
    ("POST", "/people/users", {"name": 3, "role": "viewer"}, 400),
    ("POST", "/people/users", {"name": "x", "role": "viewer", "epoch": 1}, 400),
    ("POST", "/people/users", {"name": "x" * 10_000, "role": "viewer"}, 400),
    ("PATCH", f"/people/users/{UNKNOWN}", {"role": "admin"}, 404),
    ("DELETE", f"/people/users/{UNKNOWN}", None, 404),
    ("POST", f"/people/users/{UNKNOWN}/link", None, 404),
    ("POST", "/people/keys", {"scope": "read"}, 409),
    ("POST", "/people/keys", {"scope": "read", "user": "nobody"}, 409),
    ("POST", "/people/keys", {"scope": "read", "user": "anna", "days": -1}, 400),
    ("POST", "/people/keys", {"scope": "read", "user": "anna", "days": 1e300}, 400),
    ("POST", "/people/keys/ffffffff/rotate", {}, 409),
    ("DELETE", "/people/keys/ffffffff", None, 409),
    ("GET", "/people/audit?limit=x", None, 400),
]


async def test_what_is_refused(serve: Serve) -> None:
    """What is not possible is refused with a sentence."""
    server = await serve()
    People(server.data_dir).add_user(ACTOR, "Anna", "admin")
    async with WireClient(server) as owner:
        for method, path, body, status in REFUSED:
            answered, reply = await owner.ask(method, path, body)
            assert (answered, isinstance(reply["detail"], str)) == (status, True), (method, path, body, reply)


async def test_the_key_of_the_server_on_the_page(serve: Serve) -> None:
    """The server's own key is listed and can be replaced; it is revoked only when somebody else can manage the
    server."""
    server = await serve()
    async with WireClient(server) as owner:
        (own,) = (await owner.ask("GET", "/people"))[1]["keys"]
        assert (own["owner"], own["own"]) == ("the server", True)
        status, reply = await owner.ask("DELETE", f"/people/keys/{own['id']}")
        assert (status, "Make one first" in reply["detail"]) == (409, True)
        _, made = await owner.ask("POST", f"/people/keys/{own['id']}/rotate", {})
        People(server.data_dir).add_user(ACTOR, "Anna", "admin")
        async with WireClient(Address(server.url, made["key"])) as client:
            assert (await client.ask("DELETE", f"/people/keys/{made['id']}"))[0] == 200
            assert (await client.ask("GET", "/people"))[0] == 401
        assert (await owner.ask("GET", "/people"))[0] == 401


async def test_lines_of_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Each entry of the audit log is a line of the log too, also those of commands; in JSON it has its fields."""
    caplog.set_level(logging.INFO, "atomstream.server.audit")
    server = await serve()
    async with WireClient(server) as owner:
        await owner.ask("POST", "/people/users", {"name": "Anna", "role": "admin"})
        People(server.data_dir).create_key(ACTOR, "read", user="anna")
        await owner.ask("GET", "/people")
    lines = [record for record in caplog.records if record.name == "atomstream.server.audit"]
    assert lines[0].getMessage().startswith("added Anna (admin, all projects) by the server's key (key ")
    assert "by test (command line)" in lines[1].getMessage()
    shown = json.loads(JsonFormatter().format(lines[0]))["audit"]
    assert (shown["by"], shown["done"], shown["address"]) == (
        "the server's key",
        "added Anna (admin, all projects)",
        "127.0.0.1",
    )
