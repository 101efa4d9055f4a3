"""The pages in a real Chromium: login, list, hostile names, keyboard, contrast."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "javascript:alert(4)",
    "{{7*7}}${7*7}",
    "&lt;b&gt;",
    "a\u202egpj.exe",
    "L" * 250,
]
HOSTILE_PAGES = (HOSTILE[0], HOSTILE[1], HOSTILE[6], HOSTILE[7])


def _visible(name: str) -> str:
    """The name as the pages show it: without control characters that reverse the text after them."""
    return name.replace("\u202e", "\ufffd")


async def test_a_wrong_key_and_a_right_one(page: Any, server: LiveServer) -> None:
    """A wrong key shows an error and stores nothing; a right one opens the requested page."""
    await page.goto("/")
    await page.wait_for_url(f"{server.url}/login")
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.get_by_label("API key").fill("atst_not_this_one")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("This is not a key of this server.")
    assert await page.context.cookies() == []
    await page.get_by_label("API key").fill(server.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/")
    (cookie,) = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    stored = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert server.api_key not in stored


async def test_logging_out(logged_in: Any, server: LiveServer) -> None:
    """After the logout, the pages redirect to the login page."""
    await logged_in.goto("/")
    await logged_in.get_by_role("button", name="Log out").click()
    await logged_in.wait_for_url(f"{server.url}/login")
    await logged_in.goto("/")
    await logged_in.wait_for_url(f"{server.url}/login")


async def test_login_redirects_only_to_this_server(page: Any, server: LiveServer) -> None:
    """Whatever the address contains, the login opens a page of this server only."""
    for wanted in ("//evil.example/x", "http://evil.example", "javascript:alert(1)", "/\\evil.example"):
        await page.context.clear_cookies()
        await page.goto(f"/login?next={quote(wanted, safe='')}")
        await page.get_by_label("API key").fill(server.api_key)
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile(f"^{re.escape(server.url)}/(?!login)"))


async def test_a_link_to_a_stream_leads_through_the_login(
    page: Any, server: LiveServer, growth: Growth
) -> None:
    """Without a session, the address of a stream leads to the login, and from there to the stream: no refused request
    is in the console. The login page leads on who is logged in already.
    """
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    await page.goto(growth.path)
    await page.get_by_label("API key").fill(server.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}{growth.path}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Growth 001")
    await page.goto(f"/login?next={growth.path}")
    await page.wait_for_url(f"{server.url}{growth.path}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Growth 001")
    assert errors == []


async def test_the_list(logged_in: Any, server: LiveServer) -> None:
    """Live streams are first; the server does the search; new streams appear without a reload."""
    await logged_in.goto("/")
    async with WireClient(server) as client:
        ended = await client.create("Ended one")
        await client.send(ended, 0, make_frames(4))
        await client.ask("POST", f"/rheed/stream/{ended}/end")
        await client.create("Live one")
        later = await client.create("Later one")
        await client.ask("POST", f"/rheed/stream/{later}/end")
        names = logged_in.locator("#list .name")
        await expect(names).to_have_text(["Live one", "Later one", "Ended one"])
        await expect(logged_in.locator("#list .status").first).to_have_text("Live")
        await logged_in.keyboard.press("/")
        await logged_in.keyboard.type("ended")
        await expect(names).to_have_text(["Ended one"])
        await logged_in.get_by_role("searchbox").fill("nothing like it")
        await expect(logged_in.get_by_text("No stream contains these words")).to_be_visible()


async def test_the_list_without_the_problems(logged_in: Any, server: LiveServer) -> None:
    """An error of the request for the problems of the server is shown as one, beside the streams."""
    answer = {"status": 404, "json": {"detail": "Something is wrong."}}
    await logged_in.route("**/dashboard/problems", lambda route: route.fulfill(**answer))
    async with WireClient(server) as client:
        await client.create("Live one")
    await logged_in.goto("/")
    await expect(logged_in.locator("#list .name")).to_have_text(["Live one"])
    expected = "The problems of the server can't be shown: Something is wrong."
    await expect(logged_in.locator("#problems")).to_have_text(expected)


async def test_the_certificate_is_shown(browser: Any, serve: Serve) -> None:
    """Over TLS the login works, and the list shows the fingerprint for clients; without TLS there is none."""
    server = await serve(tls="self-signed")
    assert server.running is not None
    assert server.running.certificate is not None
    context = await browser.new_context(base_url=server.url, ignore_https_errors=True)
    page = await context.new_page()
    await page.goto("/login")
    await page.get_by_label("API key").fill(server.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/")
    await expect(page.locator("#certificate")).to_contain_text(server.running.certificate.fingerprint)
    (cookie,) = await context.cookies()
    assert cookie["secure"]
    await context.close()


async def test_hostile_names_are_text(logged_in: Any, server: LiveServer) -> None:
    """Markup in names, samples and tags is shown as text, in the list and on the page; no script in it runs.

    The list has a stream of each name, the pages of some of them have marks with all names.
    """
    page = logged_in
    async with WireClient(server) as client:
        for name in HOSTILE:
            data_id = await client.create(name)
            await client.send(data_id, 0, make_frames(4, 64, 64))
            _, sample = await client.ask("POST", "/physical_samples/", {"name": f"sample {name}"[:200]})
            link = {"data_ids": [data_id], "physical_sample_id": sample["id"]}
            assert (await client.ask("POST", "/data_entries/physical_sample", link))[0] == 200
            if name not in HOSTILE_PAGES:
                continue
            for label in HOSTILE:
                mark = {"label": label[:200], "kind": "note"}
                assert (await client.ask("POST", f"/rheed/stream/{data_id}/events", mark))[0] == 200
            await page.goto(f"/streams/{data_id}")
            await expect(page.get_by_role("heading", level=1)).to_have_text(_visible(name))
            await expect(page.locator("#events .label")).to_have_count(len(HOSTILE))
            labels = await page.locator("#events .label").all_text_contents()
            assert sorted(labels) == sorted(_visible(label)[:200] for label in HOSTILE)
            await expect(page).to_have_title(re.compile(re.escape(_visible(name))))
            assert await page.locator("main img, main script, #name *, #facts *, #events img").count() == 0
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.goto("/")
    await expect(page.locator("#list li")).to_have_count(len(HOSTILE))
    assert await page.locator("#list img, #list script, #list svg").count() == 0
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


SMUGGLED = """async () => {
  const inline = document.createElement("script");
  const attempts = [
    () => { document.body.innerHTML = "<b>x</b>"; },
    () => { inline.textContent = "window.ran = 1"; document.body.append(inline); },
    () => { document.body.setAttribute("onclick", "window.ran = 2"); document.body.click(); },
    () => { setTimeout("window.ran = 3"); },
    () => { const link = document.createElement("a"); link.href = "javascript:window.ran = 4"; link.click(); },
  ];
  for (const attempt of attempts) try { attempt(); } catch { /* refused */ }
  await new Promise((resolve) => setTimeout(resolve, 0));
  return [window.ran ?? null, document.body.innerHTML.includes("<b>x</b>")];
}"""


async def test_the_page_may_not_run_strings(browser: Any, server: LiveServer) -> None:
    """The Content-Security-Policy works: no inline script or handler, and no markup or code from a string."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{server.url}/login")
    assert await page.evaluate(SMUGGLED) == [None, False]
    await context.close()


UNNAMED = """() => [...document.querySelectorAll("button, input, select, a[href]")].filter((e) =>
  !(e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label"))).map((e) => e.outerHTML)"""


async def test_keys_alone_are_enough(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """The keyboard leads from the list to a stream and through its controls; the focus is always visible.

    For screen readers the page has landmarks, headings, names of all controls, and the growth rate in a polite live
    region.
    """
    page = logged_in
    await page.goto("/")
    await growth.push(4)
    await expect(page.locator("#list li")).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the streams")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}{growth.path}")
    await expect(page.locator('#overlay g[data-name="specular"]')).to_have_count(1)
    seen = []
    for _ in range(30):
        await page.keyboard.press("Tab")
        focus = await page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
                return [e.id || e.dataset.name || e.className || e.tagName,
                        e.tagName === "BODY" || s.outlineStyle !== "none" || e.namespaceURI.endsWith("svg")]; }"""
        )
        assert focus[1], f"the focus on {focus[0]} can't be seen"
        seen.append(focus[0])
    assert {
        "mark",
        "health-button",
        "more-button",
        "theme",
        "logout",
        "look-button",
        "stage",
        "draw-box",
        "specular",
        "chart",
        "follow",
    } <= set(seen)
    await page.locator("#health-button").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Backlog and clock")).to_contain_text("Frames stored")
    await expect(page.locator("#health-button")).to_have_attribute("aria-expanded", "true")
    for role in ("main", "banner", "navigation"):
        await expect(page.get_by_role(role)).to_have_count(1)
    for name in ("Growth rate", "Picture", "Over time", "Events"):
        await expect(page.get_by_role("region", name=name, exact=True)).to_have_count(1)
    await expect(page.locator("#rate-spoken")).to_have_text(
        re.compile(r"Growth rate \d+\.\d+ plus or minus .* ML/s")
    )
    await expect(page.locator("#rate-spoken")).to_have_attribute("aria-live", "polite")
    await expect(page.locator(".chart").first).to_have_attribute(
        "aria-label", re.compile("Specular intensity over .* newest")
    )
    assert await page.evaluate(UNNAMED) == []


CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.99) return c; } return [0, 0, 0]; };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("svg, script, .stage, [hidden], datalist, option, dialog") || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < (large ? 3 : 4.5)) poor.push(`${e.textContent.trim()}: ${contrast.toFixed(2)}`);
  }
  return poor;
}"""


async def test_both_themes_can_be_read(logged_in: Any, growth: Growth) -> None:
    """In the dark and the light theme all text has the contrast of WCAG AA; the choice is stored."""
    page = logged_in
    await growth.push(4)
    for path in ("/", growth.path):
        await page.goto(path)
        await expect(page.locator(".status").first).not_to_have_text("")
        assert await page.evaluate(CONTRASTS) == []
        await page.get_by_role("button", name="Light").click()
        assert await page.evaluate(CONTRASTS) == []
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
        await page.get_by_role("button", name="Dark", exact=True).click()


async def test_it_fits_any_screen(logged_in: Any, growth: Growth) -> None:
    """From a phone to a wall display nothing overflows at the side, and the rate is on the first screen."""
    page = logged_in
    await growth.push(4)
    for width in (360, 768, 1280, 1920):
        await page.set_viewport_size({"width": width, "height": 800})
        if width != 1280:  # this one by a change of the window's width
            await page.goto(growth.path)
        await expect(page.locator("#rate-value"), f"width {width}").not_to_have_text("–")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await expect(page.locator("#rate-value"), f"width {width}").to_be_in_viewport()
