"""What axe-core finds on a page: violations of WCAG 2.1 A and AA, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


async def violations(page: Any) -> list[str]:
    """One line for each element that violates a rule; the page's context must bypass its CSP."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    folder = Path(package.__file__).parent
    await page.evaluate(next(folder.rglob("axe.min.js")).read_text())
    found = await page.evaluate(
        """() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] })"""
    )
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
