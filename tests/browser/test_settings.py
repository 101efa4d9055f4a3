"""The settings page and the sign-in of people in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atomstream.server.people.records import Actor
from atomstream.server.people.store import People
from tests.browser.assertions import expect
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

ACTOR = Actor("test", "command line")
PASSWORD = "correct horse battery"


async def test_a_lab_is_set_up_on_the_page(logged_in: Any, server: LiveServer) -> None:
    """An administrator adds a person with a project and makes a key, by keyboard and mouse; both work."""
    page = logged_in
    async with WireClient(server) as client:
        await client.ask("POST", "/projects/", {"name": "GaN on Si"})
    await page.goto("/")
    await page.get_by_role("link", name="Settings").click()
    await page.get_by_role("button", name="Add a person").press("Enter")
    await expect(page.locator("#person-name")).to_be_focused()
    await page.keyboard.type("Anna <b>Sommer</b>")
    await page.get_by_label("all projects").uncheck()
    await page.get_by_label("GaN on Si").check()
    await page.locator("#person-password").fill("short")
    await page.keyboard.press("Enter")
    await expect(page.locator("#person-problem")).to_contain_text("at least 12")
    await page.locator("#person-password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.locator("#people li")).to_contain_text("Anna <b>Sommer</b>")
    await expect(page.locator("#people .facts")).to_have_text("viewer, GaN on Si")
    await page.get_by_role("button", name="Make a key").click()
    await page.get_by_label("Name of the instrument").fill("MBE 3")
    await page.keyboard.press("Enter")
    await expect(page.locator("#secret")).to_have_text(re.compile("^atst_"))
    secret = await page.locator("#secret").inner_text()
    async with WireClient(server, headers={"X-API-KEY": secret}) as client:
        assert (await client.ask("GET", "/projects/"))[0] == 200
    await page.get_by_role("button", name="Done").click()
    await expect(page.locator("#secret")).to_have_text("")
    key = page.locator("#keys li", has_text="MBE 3")
    await key.get_by_role("button", name=re.compile("Revoke")).click()
    await expect(page.locator("#ask-dialog .cancel")).to_be_focused()
    await page.locator("#ask-submit").click()
    await expect(key).to_have_count(0)
    await expect(page.locator("#audit li").first).to_contain_text("revoked key")
    async with WireClient(server, headers={"X-API-KEY": secret}) as client:
        assert (await client.ask("GET", "/projects/"))[0] == 401


async def test_the_page_fits_a_phone(logged_in: Any, server: LiveServer) -> None:
    """Long names do not make the page or a dialog wider than a phone."""
    page = logged_in
    people = People(server.data_dir)
    people.add_user(ACTOR, "A" * 120, "viewer")
    people.create_key(ACTOR, "read", instrument="B" * 120)
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.goto("/settings")
    await expect(page.locator("#people li")).to_have_count(1)
    for opener in ("#add-person", "#add-key"):
        await page.locator(opener).click()
        widths = """[document.documentElement.scrollWidth,
            ...[...document.querySelectorAll('dialog[open] *')].map((one) => one.getBoundingClientRect().right)]"""
        assert max(await page.evaluate(widths)) <= 360
        await page.keyboard.press("Escape")


async def test_sign_in_by_password_and_by_link(page: Any, server: LiveServer) -> None:
    """A person signs in by password, changes it, and by a link once; a viewer sees no settings of others."""
    people = People(server.data_dir)
    people.add_user(ACTOR, "Anna", "viewer", password=PASSWORD)
    await page.goto("/login?next=/settings")
    await expect(page.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("anna")
    await page.keyboard.press("Tab")
    await page.keyboard.type("something wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#person-problem")).to_have_text("Name or password is wrong.")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/settings")
    await expect(page.locator("#who")).to_have_text("Logged in: Anna")
    await expect(page.locator("#admin")).to_be_hidden()
    await page.get_by_role("button", name="Change it").click()
    await page.get_by_label("Present password").fill(PASSWORD)
    await page.get_by_label("New password, at least 12 characters").fill("another horse battery")
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_have_text("Your password is changed.")
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url(re.compile("/login"))
    await page.get_by_role("button", name="Use an API key instead").click()
    await expect(page.get_by_label("API key")).to_be_focused()
    token = People(server.data_dir).link_for(ACTOR, "anna")
    await page.goto(f"/login?next=/settings#link={token}")
    await page.wait_for_url(f"{server.url}/settings")
    await page.context.clear_cookies()
    await page.goto(f"/login?again#link={token}")
    await expect(page.locator("#link-problem")).to_contain_text("was used already")
    assert "link=" not in page.url
