"""The console in a real browser, against a real node."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_process import AnsweringDevice, NodeProcess, PlainDevice
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

HANDLERS = Path(__file__).with_name("sync_handlers.py")
CHROMIUM = "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


def _is_complaint(said: ConsoleMessage) -> bool:
    # The browser itself notes each answer above 399; that a refused command has one is as it should be.
    return said.type in ("error", "warning") and not said.text.startswith("Failed to load resource")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens pages; whatever their console or an uncaught error says fails the test."""
    contexts, complaints = [], []

    def open_page(url: str) -> Page:
        context = browser.new_context(viewport={"width": 1400, "height": 1100})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def meters(start_node: Callable[..., NodeProcess], tmp_path: Path) -> Iterator[NodeProcess]:
    """A node with handlers, a device that answers, and its record."""
    (tmp_path / "sync_handlers.py").write_text(HANDLERS.read_text())
    node = start_node(TRUNKLINE_MODULES="sync_handlers")
    device = PlainDevice(node.address)
    device.send("HELLO meter-1")
    answers = {"PAGES": "3", **{f"PAGE {page}": json.dumps({f"r{page}": page}) for page in (1, 2, 3)}}
    answering = AnsweringDevice(device, lambda cmd: answers.get(cmd, f"OK {cmd}"), delay=0.05)
    node.http.put("/api/v1/records/meter/meter-1", json={"title": "Meter one"}).raise_for_status()
    yield node
    answering.close()


def test_the_devices_stand_in_the_table_with_the_reason_why_they_are_offline(
    meters: NodeProcess, open_page: Callable[[str], Page]
) -> None:
    gone = PlainDevice(meters.address)
    gone.send("HELLO gone-1")
    gone.check_round_trip()
    gone.close()
    page = open_page(meters.url)
    expect(page.get_by_role("row").filter(has_text="meter-1")).to_contain_text("online")
    expect(page.get_by_role("row").filter(has_text="gone-1")).to_contain_text("the device closed the line")


def test_a_command_is_sent_from_the_box_and_its_reply_appears(
    meters: NodeProcess, open_page: Callable[[str], Page]
) -> None:
    page = open_page(meters.url)
    page.get_by_role("row").filter(has_text="meter-1").click()
    page.get_by_role("textbox", name="Command").fill("read <b>all</b>")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("OK read <b>all</b>")).to_be_visible()
    expect(page.locator("b", has_text="all")).to_have_count(0)


def test_a_refused_command_says_why_beside_the_box(meters: NodeProcess, open_page: Callable[[str], Page]) -> None:
    page = open_page(meters.url)
    page.get_by_label("Device", exact=True).fill("nobody")
    page.get_by_role("textbox", name="Command").fill("read")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("has ever said hello here").first).to_be_visible()


def test_sync_up_moves_the_bar_and_fills_the_log(meters: NodeProcess, open_page: Callable[[str], Page]) -> None:
    page = open_page(meters.url)
    page.get_by_role("button", name="Sync up").click()
    page.get_by_role("button", name="Log").click()
    expect(page.get_by_text("page 3: 1 readings")).to_be_visible()
    expect(page.get_by_text("succeeded").first).to_be_visible()
    bar = page.locator("progress")
    assert bar.evaluate("bar => bar.value / bar.max") == 1
    assert meters.http.get("/api/v1/records/meter/meter-1").json()["synced_at"]


def test_a_second_click_joins_the_running_job(
    meters: NodeProcess, open_page: Callable[[str], Page], tmp_path: Path
) -> None:
    meters.http.put("/api/v1/records/gated/g", json={"title": "Behind a gate"})
    page = open_page(meters.url)
    row = page.locator("record-row, [data-record], li, article").filter(has_text="Behind a gate").last
    row.get_by_role("button", name="Sync up").click()
    expect(page.get_by_text("Started a job.")).to_be_visible()
    row.get_by_role("button", name="Sync up").click()
    expect(page.get_by_text("Joined the running job.")).to_be_visible()
    (tmp_path / "open-g").touch()


def test_stored_batches_appear_with_their_items(meters: NodeProcess, open_page: Callable[[str], Page]) -> None:
    page = open_page(meters.url)
    page.get_by_label("Items, as a JSON list").fill('[1, 2, {"a": "<i>x</i>"}]')
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.get_by_text('{"a":"<i>x</i>"}')).to_be_visible()
    page.get_by_label("Items, as a JSON list").fill("{}")
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.get_by_text("but not a list")).to_be_visible()


def test_what_a_device_says_is_text_and_never_markup(
    start_node: Callable[..., NodeProcess], open_page: Callable[[str], Page]
) -> None:
    node = start_node('[devices]\nhello = "HELLO (?P<device>.+)"\n')
    device = PlainDevice(node.address)
    hostile_id = "<img src=x onerror=document.title=1>\u202eevil"
    device.send(f"HELLO {hostile_id}")
    answering = AnsweringDevice(device, lambda _cmd: HOSTILE)
    page = open_page(node.url)
    row = page.get_by_role("row").filter(has_text="onerror")
    expect(row).to_contain_text("\\u202e")
    row.click()
    page.get_by_role("textbox", name="Command").fill("say it")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    node.http.post("/api/v1/items", json=[HOSTILE]).raise_for_status()
    expect(page.get_by_text(json.dumps(HOSTILE))).to_be_visible()
    assert page.title() != "run"
    assert page.locator("img[src=x]").count() == 0
    answering.close()


def test_the_page_heals_when_the_node_comes_back(
    meters: NodeProcess, browser: Browser, start_node: Callable[..., NodeProcess]
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(meters.url)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    port = meters.url.rpartition(":")[2]
    meters.stop()
    expect(page.get_by_text("does not answer")).to_be_visible(timeout=15_000)
    again = start_node(TRUNKLINE_HTTP_PORT=port, TRUNKLINE_MODULES="sync_handlers")
    expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=15_000)
    assert again.url == meters.url
    context.close()
