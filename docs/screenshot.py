"""Makes docs/console.png: the console of a demo that runs.

usage: bin/demo &   then   .venv/bin/python docs/screenshot.py [URL]
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]


def main() -> None:
    """Does by hand what an operator would do, and takes the picture in the middle of it."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7480/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 1180}, color_scheme="light")
        page.goto(url)
        page.get_by_role("row").filter(has_text="sim-0007").click()
        page.get_by_role("textbox", name="Command").fill("read all")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("Replied after").last.wait_for()
        sync = page.get_by_role("button", name="Sync up")
        sync.nth(1).click()
        page.get_by_role("button", name="Log").nth(1).click()
        page.get_by_text("page 5:").first.wait_for()
        sync.nth(0).click()
        page.wait_for_timeout(350)
        page.screenshot(path=Path(__file__).with_name("console.png"))
        browser.close()


if __name__ == "__main__":
    main()
