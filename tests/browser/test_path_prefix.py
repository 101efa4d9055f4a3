"""The pages in a real Chromium behind a proxy that publishes the server under a path prefix."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.growth import Growth
from tests.live_server import Serve
from tests.reverse_proxy import ReverseProxy

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("strips", [True, False], ids=["removes the prefix", "forwards the prefix"])
async def test_the_pages_stay_below_the_prefix(browser: Any, serve: Serve, strips: bool) -> None:
    """Login, list, page, live picture, rename and logout work; no request leaves the prefix, nor does the cookie."""
    async with ReverseProxy("/lab/rheed", strips=strips, keeps_host=strips).running() as proxy:
        server = await serve(public_url=proxy.url)
        proxy.target = server.url
        context = await browser.new_context(reduced_motion="reduce")
        page = await context.new_page()
        page.set_default_timeout(60_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(proxy.url)
        await page.wait_for_url(f"{proxy.url}/login*")
        await page.get_by_label("API key").fill(server.api_key)
        await page.keyboard.press("Enter")
        await page.wait_for_url(lambda url: url.rstrip("/") == proxy.url)
        (cookie,) = await context.cookies()
        assert cookie["path"] == "/lab/rheed"
        async with Growth.begin(server) as growth:
            await growth.push(4.0)
            await page.get_by_role("link", name="Growth 001").click()
            await page.wait_for_url(f"{proxy.url}{growth.path}")
            await page.wait_for_function("() => document.body.dataset.link === 'up'")
            await growth.push(2.0)
            await page.wait_for_function("() => document.getElementById('stage-empty').hidden")
            await page.wait_for_function(
                "() => /\\d/.test(document.getElementById('rate-value').textContent)"
            )
            await page.get_by_role("button", name="Data", exact=True).click()
            link = await page.locator("#csv").get_attribute("href")
            assert link.startswith(f"/lab/rheed/rheed/stream/{growth.data_id}/export?to=csv")
        await page.locator("a.brand").click()
        await page.wait_for_url(f"{proxy.url}/")
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url(f"{proxy.url}/login")
        assert await context.cookies() == []
        assert [path for path in proxy.outside if path != "/favicon.ico"] == []
        assert errors == []
        await context.close()
