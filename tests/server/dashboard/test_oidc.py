"""Sign-in by an OpenID Connect provider: a real one, and one that sends wrong tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.dashboard.oidc_sign_in import admit
from atomstream.server.http.oidc_provider import OidcError, OidcProvider
from atomstream.server.oidc_settings import OidcSettings
from atomstream.server.people.records import Actor
from atomstream.server.people.store import People
from tests.live_server import LiveServer, Serve
from tests.server.dashboard.oidc_providers import ScriptedProvider, approve, provider_process
from tests.server.dashboard.test_login import browser, status_of
from tests.wire_client import WireClient

pytest.importorskip("joserfc")
ACTOR = Actor("test", "command line")


def settings_of(issuer: str, **more: Any) -> OidcSettings:
    """Settings with a role for the group mbe."""
    return OidcSettings(
        **{
            "issuer": issuer,
            "client_id": "atomstream",
            "client_secret": "a client secret",
            "name": "the institute",
            "roles": {"mbe": "operator", "heads": "admin"},
            **more,
        }
    )


async def begin(session: aiohttp.ClientSession, page: str = "") -> str:
    """Begin a sign-in; the address of the provider."""
    async with session.get("/oidc/login", params={"next": page}, allow_redirects=False) as reply:
        assert reply.status == 302, await reply.text()
        return reply.headers["Location"]


async def come_back(session: aiohttp.ClientSession, address: str) -> tuple[int, str]:
    """Open the address to which the provider sends the browser; status, and the page or the sentence."""
    async with session.get(address, allow_redirects=False) as reply:
        if reply.status == 302:
            return 302, reply.headers["Location"]
        return reply.status, str((await reply.json())["detail"])


async def signed_in(session: aiohttp.ClientSession) -> dict[str, Any]:
    """Return the server's description of the session: the person who is logged in, role and projects."""
    async with session.get("/session") as reply:
        return dict(await reply.json())


async def test_with_a_real_provider(serve: Serve) -> None:
    """Sign-in, role and projects by groups, a second sign-in of the same person, and a code that was used already."""
    anna = {"sub": "0815", "preferred_username": "Anna Sommer", "groups": ["mbe", "gan-team"]}
    nobody = {"sub": "4711", "preferred_username": "Max", "groups": ["canteen"]}
    with provider_process(anna, nobody) as issuer:
        server = await serve(oidc=settings_of(issuer, projects={"gan-team": ["gan on si", "unmade"]}))
        async with WireClient(server) as owner:
            await owner.ask("POST", "/projects/", {"name": "GaN on Si"})
            await owner.ask("POST", "/projects/", {"name": "Secret"})
        async with browser(server) as session:
            async with session.get("/session/ways") as reply:
                assert await reply.json() == {"password": False, "oidc": "the institute", "session": False}
            back = await approve(session, await begin(session, "/streams/x"), "0815")
            assert await come_back(session, back) == (302, "/streams/x")
            shown = await signed_in(session)
            assert (shown["name"], shown["right"]) == ("Anna Sommer", "write")
            async with session.get("/projects/") as reply:
                assert [one["name"] for one in await reply.json()] == ["GaN on Si"]
            assert (await come_back(session, back))[0] == 401
        async with browser(server) as session:
            back = await approve(session, await begin(session), "0815")
            assert await come_back(session, back) == (302, "/")
        async with browser(server) as session:
            status, sentence = await come_back(session, await approve(session, await begin(session), "4711"))
            assert (status, "has no role" in sentence) == (403, True)
            assert await status_of(session, "GET", "/session") == 401
        people = People(server.data_dir).directory
        assert [user.name for user in people.users.values()] == ["Anna Sommer"]
        assert sum(entry.done == "signed in by OpenID Connect" for entry in people.entries) == 2


async def test_a_replayed_code_is_refused(serve: Serve) -> None:
    """The provider refuses a code that was used, also together with the cookie of its sign-in."""
    with provider_process({"sub": "0815", "groups": ["mbe"]}) as issuer:
        server = await serve(oidc=settings_of(issuer))
        async with browser(server) as session:
            address = await begin(session)
            cookies = {cookie.key: cookie.value for cookie in session.cookie_jar}
            back = await approve(session, address, "0815")
            assert (await come_back(session, back))[0] == 302
        async with aiohttp.ClientSession(server.url, cookies=cookies) as thief:
            status, sentence = await come_back(thief, back)
            assert (status, "used already" in sentence) == (401, True)


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"aud": "another program"}, "another program (aud)"),
        ({"aud": ["atomstream", "x"], "azp": "x"}, "another program (aud)"),
        ({"aud": None}, "another program (aud)"),
        ({"iss": "https://evil.example"}, "another provider (iss)"),
        ({"exp": int(time.time()) - 3600}, "has expired (exp)"),
        ({"exp": None}, "has expired (exp)"),
        ({"iat": int(time.time()) + 3600}, "in the future (iat)"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet (nbf)"),
        ({"nonce": "that of another one"}, "another sign-in (nonce)"),
        ({"nonce": None}, "another sign-in (nonce)"),
        ({"sub": ""}, "names nobody (sub)"),
        ({"groups": ["canteen"]}, "has no role"),
    ],
)
async def test_wrong_tokens(serve: Serve, claims: dict[str, Any], word: str) -> None:
    """A token for another client, another person or another time is refused with the reason."""
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        provider.claims = claims
        async with browser(server) as session:
            status, sentence = await come_back(session, provider.approve(await begin(session)))
            assert (status in (401, 403), word in sentence) == (True, True), sentence
            assert await status_of(session, "GET", "/session") == 401
            provider.claims = {}
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302


async def test_times_that_are_no_dates(serve: Serve) -> None:
    """A number that no float can hold, NaN and infinity are refused like a wrong time."""
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            for name in ("exp", "iat", "nbf"):
                for value in (10**400, -(10**400), float("nan"), float("inf")):
                    provider.claims = {name: value}
                    status, sentence = await come_back(session, provider.approve(await begin(session)))
                    assert (status, f"({name})" in sentence) == (401, True), (name, value, sentence)


async def test_metadata_of_wrong_types(serve: Serve) -> None:
    """What the server can do without is left out; the sign-in succeeds."""
    async with ScriptedProvider().running() as provider:
        provider.metadata = {"token_endpoint_auth_methods_supported": 0, "response_types_supported": None}
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302


async def test_keys_are_bounded() -> None:
    """As many keys are read as a provider may have, and none with huge numbers: reading takes time."""
    async with ScriptedProvider().running() as provider:
        right = provider.keys[0].as_dict(private=False)
        for more, keys in (
            ([{**right, "kid": f"k{number}"} for number in range(300)], 100),
            ([{**right, "kid": "huge", name: "_" * 100_000} for name in ("n", "e")], 1),
        ):
            provider.more_keys = more
            assert (await OidcProvider(settings_of(provider.issuer)).contact()).keys == keys
        provider.more_keys = [{**right, "kid": "odd", "n": {"a": 1}}]
        with pytest.raises(OidcError, match="keys can't be read"):
            await OidcProvider(settings_of(provider.issuer)).contact()


async def test_signatures(serve: Serve) -> None:
    """Tokens of other keys, unsigned ones and ones signed with a shared secret are refused; new keys are read."""
    from joserfc.jwk import OctKey, RSAKey

    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            right = provider.signing
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302
            for key, algorithm in (
                (RSAKey.generate_key(2048, {"kid": "first"}), "RS256"),
                (RSAKey.generate_key(2048, {"kid": "unknown"}), "RS256"),
                (OctKey.import_key("a client secret", {"kid": "first"}), "HS256"),
            ):
                provider.signing, provider.algorithm = key, algorithm
                status, sentence = await come_back(session, provider.approve(await begin(session)))
                assert (status, "signature" in sentence) == (401, True), algorithm
            for id_token in ("", "x", "a.b.c", f"{_encoded({'alg': 'none'})}.{_encoded({'sub': '1'})}.", 3):
                provider.token_reply = web.json_response({"id_token": id_token, "access_token": "x"})
                status, _ = await come_back(session, provider.approve(await begin(session)))
                assert status in (401, 502), id_token
                provider.token_reply = None
            provider.signing, provider.algorithm = right, "RS256"
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302


def _encoded(value: dict[str, str]) -> str:
    import base64

    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_rotated_keys(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the provider has changed its keys, they are read again; requests without a valid sign-in can't make that
    happen often."""
    from joserfc.jwk import RSAKey

    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302
            provider.keys = [RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})]
            provider.signing = provider.keys[0]
            for _ in range(3):
                assert (await come_back(session, provider.approve(await begin(session))))[0] == 401
            assert provider.key_requests == 1
            monkeypatch.setattr("atomstream.server.http.oidc_provider.KEYS_RETRY_S", 0.0)
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302
            assert provider.key_requests == 2


async def test_callbacks_that_belong_to_no_sign_in(serve: Serve) -> None:
    """Without the cookie of the browser that began, with another state, or after a refusal nobody is signed in."""
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session, browser(server) as other:
            back = provider.approve(await begin(session))
            assert (await come_back(other, back))[0] == 401
            await begin(other)
            assert "state" in (await come_back(other, back))[1]
            assert "iss" in (await come_back(session, f"{back}&iss=https://evil.example"))[1]
            state = back.split("state=")[1]
            refused = f"/oidc/callback?error=access_denied&error_description=<script>&state={state}"
            status, sentence = await come_back(session, refused)
            assert (status, sentence) == (401, "The provider refused the sign-in. Nobody was signed in.")
            assert (await come_back(session, f"/oidc/callback?state={state}"))[0] == 401
            async with session.get(back.replace(state, "%ff"), allow_redirects=False) as reply:
                assert reply.status == 401


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "x", "/a\nb"],
)
async def test_the_page_afterwards_is_of_this_server(serve: Serve, wanted: str) -> None:
    """Whatever the address of the sign-in contains, the browser ends on a page of this server."""
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        async with browser(server) as session:
            back = provider.approve(await begin(session, wanted))
            assert await come_back(session, back) == (302, "/")


async def test_a_provider_that_does_not_work(serve: Serve) -> None:
    """Without the provider, with another issuer or unsafe addresses, the answer names what is wrong."""
    async with ScriptedProvider().running() as provider:
        issuer = provider.issuer
        for metadata, word in (
            ({"issuer": "https://another.example"}, "oidc.issuer"),
            ({"token_endpoint": "http://evil.example/token"}, "https"),
            ({"jwks_uri": None}, "https"),
        ):
            provider.metadata = metadata
            server = await serve(oidc=settings_of(issuer))
            async with browser(server) as session, session.get("/oidc/login", allow_redirects=False) as reply:
                assert (reply.status, word in (await reply.json())["detail"]) == (502, True)
        provider.metadata = {}
        server = await serve(oidc=settings_of(issuer))
        async with browser(server) as session:
            for body, status in ((b"x" * (2 << 20), 502), (b"[]", 502), (b"{", 502)):
                provider.token_reply = web.Response(body=body)
                assert (await come_back(session, provider.approve(await begin(session))))[0] == status
    server = await serve(oidc=settings_of(issuer))
    async with browser(server) as session:
        async with session.get("/oidc/login", allow_redirects=False) as reply:
            assert (reply.status, "can't be reached" in (await reply.json())["detail"]) == (503, True)
        assert await status_of(session, "POST", "/session", json={"key": server.api_key}) == 204


async def test_without_settings_there_is_no_such_sign_in(serve: Serve) -> None:
    """A server without the table answers 404."""
    server = await serve()
    async with browser(server) as session:
        for path in ("/oidc/login", "/oidc/callback?code=x&state=y"):
            assert await status_of(session, "GET", path, allow_redirects=False) == 404


async def test_claims_that_come_on_request_only(serve: Serve) -> None:
    """Groups that are not in the ID token are read from the provider; an answer about somebody else is refused."""
    async with ScriptedProvider().running() as provider:
        server = await serve(oidc=settings_of(provider.issuer))
        provider.claims = {"groups": None}
        provider.user_info = {"sub": "0815", "groups": ["heads"]}
        async with browser(server) as session:
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 302
            assert (await signed_in(session))["right"] == "admin"
            provider.user_info = {"sub": "4711", "groups": ["heads"]}
            assert (await come_back(session, provider.approve(await begin(session))))[0] == 502


def test_the_role_follows_the_provider(memory_path: Path) -> None:
    """The highest role counts; it changes with the groups, and a person without any role is removed with their keys."""
    people, settings = People(memory_path), settings_of("https://login.example")
    claims = {"sub": "1", "preferred_username": "anna", "groups": ["mbe", "heads"]}
    assert admit(people, settings, claims, None).role == "admin"
    assert admit(people, settings, {**claims, "groups": "mbe"}, ("p",)).role == "operator"
    user = people.directory.user_named("anna")
    assert user is not None
    assert user.projects == ("p",)
    people.create_key(ACTOR, "write", user="anna")
    with pytest.raises(ConfigError, match="has no role"):
        admit(people, settings, {**claims, "groups": []}, None)
    assert not people.directory.users
    assert not people.directory.keys
    people.add_user(ACTOR, "anna", "viewer")
    assert admit(people, settings, claims, None).name == "anna (login.example)"
    nested = settings_of("https://login.example", role_claim="realm_access.roles")
    assert nested.role_of({"realm_access": {"roles": ["heads"]}}) == "admin"
    assert nested.role_of({"realm_access": 3}) is None


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, "issuer is missing"),
        ({"issuer": "https://a.example"}, "client_id is missing"),
        ({"issuer": "http://a.example", "client_id": "x", "default_role": "viewer"}, "https"),
        ({"issuer": "https://u:p@a.example", "client_id": "x", "default_role": "viewer"}, "https"),
        ({"issuer": "https://a.example", "client_id": "x"}, "nobody could sign in"),
        ({"issuer": "https://a.example", "client_id": "x", "default_role": "boss"}, "not a role"),
        ({"issuer": "https://a.example", "client_id": "x", "roles": {"a": "boss"}}, "not a role"),
        ({"issuer": "https://a.example", "client_id": 3, "default_role": "viewer"}, "string in quotes"),
        ({"issuer": "https://a.example", "client_id": "x", "isuer": "y"}, "Did you mean issuer"),
        ({"issuer": "https://a.example", "client_id": "x", "client_secret": "y"}, "client_secret_file"),
        ({"issuer": "https://a.example", "client_id": "x", "client_secret_file": "none"}, "can't be read"),
        ({"issuer": "https://a.example", "client_id": "x", "roles": "admin"}, "table of strings"),
        ({"issuer": "https://a.example", "client_id": "x", "projects": {"a": "b"}}, "table of lists"),
        ({"issuer": "https://a.example", "client_id": "x", "scopes": "openid"}, "list of strings"),
        (
            {"issuer": "https://a.example", "client_id": "x", "default_role": "viewer", "scopes": ["email"]},
            "openid",
        ),
        (
            {"issuer": "https://a.example", "client_id": "x", "default_role": "viewer", "session_hours": 0},
            "0.1",
        ),
        ({"issuer": "https://a.example", "client_id": "x", "session_hours": "1"}, "not a number"),
        (3, "not a table"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, table: Any, sentence: str) -> None:
    """A wrong setting is named when the server starts."""
    with pytest.raises(ConfigError, match=sentence):
        OidcSettings.from_table(table, tmp_path)


def test_settings_from_a_file(tmp_path: Path) -> None:
    """The table of the configuration file, with a secret in another file next to it."""
    from atomstream.cli.configuration import merged

    (tmp_path / "secret").write_text("a client secret\n")
    (tmp_path / "server.toml").write_text(
        """
        port = 9000
        [oidc]
        issuer = "https://login.institute.example/realms/lab"
        client_id = "atomstream"
        client_secret_file = "secret"
        [oidc.roles]
        mbe-admins = "admin"
        [oidc.projects]
        gan-team = ["GaN on Si"]
        """
    )
    settings = OidcSettings.from_table(*merged({}, {}, tmp_path / "server.toml", {})["oidc"])
    assert (settings.client_secret, settings.roles) == ("a client secret", {"mbe-admins": "admin"})
    assert settings.projects_of({"groups": ["gan-team", "x"]}) == ("GaN on Si",)
    assert "a client secret" not in repr(settings)


async def test_a_session_ends_earlier_than_others(serve: Serve) -> None:
    """The session lasts for the time of the settings; then the provider is asked again."""
    async with ScriptedProvider().running() as provider:
        server: LiveServer = await serve(oidc=settings_of(provider.issuer, session_hours=1.0))
        async with browser(server) as session:
            await come_back(session, provider.approve(await begin(session)))
            (stored,) = json.loads((server.data_dir / "sessions.json").read_text())
            assert stored["expires"] == pytest.approx(time.time() + 3600, abs=100)
            (cookie,) = [one for one in session.cookie_jar if one.key.startswith("atomstream_session")]
            assert cookie["max-age"] == "3600"
