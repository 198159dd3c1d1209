"""Headless Chromium: Debian's, driven by Playwright; what a page says, asks for and looks like."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patience import PATIENCE


@contextmanager
def a_chromium() -> Iterator[Any]:
    """Start Chromium. It is installed if it is missing and this process may."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--force-color-profile=srgb", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=_installed(), args=arguments)
        yield browser
        browser.close()


def _installed() -> str:
    apt = shutil.which("apt-get")
    if not (found := shutil.which("chromium")) and apt and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run([apt, "-qq", *step], env=environment, check=True)
        found = shutil.which("chromium")
    if not found:
        raise RuntimeError("these tests need Chromium: apt-get install chromium")
    return found


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: Playwright's page.
        said: What came on its console, and errors of its scripts.
        asked: Addresses that it asked for, apart from its own.
    """

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.text_content(selector)

    def until(self, expression: str) -> None:
        """Wait until *expression* is true in the page.

        Not by Playwright's `wait_for_function`: from the second look on it runs in the page, whose
        policy forbids `eval`.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)


@contextmanager
def opened(browser: Any, file: Path, *, width: int = 1280, **how: Any) -> Iterator[Opened]:
    """Open *file* as a user does who has got it by mail."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **how)
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    one = Opened(page)
    page.on("console", lambda message: one.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: one.said.append(str(error)))
    page.on("request", lambda request: one.asked.append(request.url))
    page.goto(file.as_uri())
    if how.get("java_script_enabled", True):
        one.until("document.documentElement.dataset.ready !== undefined")
    one.asked.remove(file.as_uri())
    yield one
    context.close()
