"""Opens the page as users get it: in a real browser, from a server started by the command that they type."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which

from playwright.sync_api import Page, expect, sync_playwright

PLAY = "from genie.cli import app; app()"  # what the command `genie` runs, from this checkout


@contextmanager
def opened_page(source: str | None, **options) -> Iterator[tuple[Page, float]]:
    """Yields the page once it shows its first frame, and the seconds from the command until then.

    Args:
        source: world to play, as for `genie play`; None is the shipped one.
        options: options of Playwright's `new_page`.
    """
    command = [sys.executable, "-c", PLAY, "play", "--no-open", "--port", "0"]
    command += ["--world", source] if source else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(**options)
        start = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            page.goto(server.stdout.readline().split()[2])
            expect(page.locator("#curtain")).to_contain_text("hold", timeout=60_000)
            yield page, time.perf_counter() - start
        finally:
            server.terminate()
            server.wait()
            browser.close()
