"""Chromium, as playwright drives it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator:
    """A browser of playwright's, without a window.

    While it is open, this thread has a running event loop: ``asyncio.run`` and a second browser
    are refused.

    Raises:
        FileNotFoundError: if there is no Chromium.
        ModuleNotFoundError: if there is no playwright.
    """
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if not executable:
        raise FileNotFoundError("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
