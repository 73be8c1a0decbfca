"""The page in a real Chromium: keys, undo, search, and 100,000 findings, without an error or a strange request."""

import json
import re
import shutil
import subprocess
import time

import pytest

from doubles.processes import start_command

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
EVIL = "<script>document.title='x'</script><img src=x onerror=alert(1)>"
MANY = 100_000


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    path = tmp_path_factory.mktemp("review") / "findings.jsonl"
    words = [EVIL, "5v", "\u202eevil", *(f"phrase {nth}" for nth in range(3000))]
    with path.open("w") as file:
        for nth in range(MANY):
            word, head = words[nth % 7 if nth % 7 < 3 else nth % len(words)], f"Blue mug {nth} "
            row = {"row": nth + 1, "id": f"i{nth}", "title": f"{head}{word} by X", "score": 5.0, "flagged": True}
            row |= {"start": len(head), "end": len(head) + len(word), "tier": "flagged", "reason": "a phrase"}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def address(findings):
    process = start_command("review", findings)
    line = process.stdout.readline()
    yield re.search(r"http://\S+", line)[0]
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def page(address):
    heard = []
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = chromium.new_page(viewport={"width": 1200, "height": 800})
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append(f"dialog {dialog.message}"))
        page.on("request", lambda asked: None if asked.url.startswith(address) else heard.append(asked.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        yield page
        chromium.close()
    assert [text for text in heard if "favicon" not in text] == []


def test_a_person_decides_by_keys(page, findings):
    chosen = page.locator("#groups .chosen")
    assert page.title() == "Cowbird: review" and EVIL[:20] in page.locator("#groups").inner_text()
    assert chosen.locator("mark").inner_text().startswith(("<script>", "5v", "<U+202E>"))
    page.keyboard.press("d")
    sync_api.expect(page.locator("#counts")).to_contain_text("1 dismissed", timeout=20_000)
    page.keyboard.press("a")
    sync_api.expect(page.locator("#counts")).to_contain_text("1 accepted", timeout=20_000)
    page.keyboard.press("u")
    sync_api.expect(page.locator("#counts")).to_contain_text("0 accepted", timeout=20_000)
    page.locator("#titles").focus()
    page.keyboard.press("End")
    sync_api.expect(page.locator("#titles .chosen")).to_be_visible(timeout=20_000)
    page.keyboard.press("d")
    sync_api.expect(page.locator("#counts")).to_contain_text("titles decided by themselves: 1", timeout=20_000)
    page.keyboard.press("e")
    sync_api.expect(page.locator("#said")).to_contain_text("texts in", timeout=20_000)
    assert len(findings.with_name(findings.name + ".allow.txt").read_text("utf-8").splitlines()) == 2


def test_a_hundred_thousand_findings_stay_fluid(page):
    page.locator("#groups").focus()
    begun = time.monotonic()
    page.keyboard.press("End")
    sync_api.expect(page.locator("#groups-1718.chosen")).to_be_visible(timeout=20_000)
    page.keyboard.press("/")
    page.keyboard.type("mug 99998")
    sync_api.expect(page.locator("#groups .row")).to_have_count(1, timeout=20_000)
    assert time.monotonic() - begun < 20, "on a busy machine"
    assert page.locator(".row").count() < 100, "only what is on the screen is there"


@pytest.mark.parametrize(
    ("name", "options"), [("dark", {"color_scheme": "dark"}), ("phone", {"color_scheme": "light"})]
)
def test_it_fits_dark_and_small(page, name, options, tmp_path):
    page.emulate_media(**options)
    page.set_viewport_size({"width": 390, "height": 800} if name == "phone" else {"width": 1200, "height": 800})
    page.screenshot(path=tmp_path / f"{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_stranger_sees_nothing(address):
    token = address.rstrip("/").rpartition("/")[2]
    answer = subprocess.run(
        ["curl", "-s", address.replace(token, "guess")], capture_output=True, text=True, check=False
    )
    assert "Blue mug" not in answer.stdout
