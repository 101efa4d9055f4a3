"""Playwright's ``expect`` with one limit for all waits. A test file that imports it is skipped without Playwright."""

import pytest

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=60_000)
