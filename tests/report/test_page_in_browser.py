"""The page in a real Chromium: no error, no request, nothing of a title runs, and it works by key, dark and small."""

import shutil

import pytest

from cowbird.report.page import write_report
from doubles.result_rows import HOSTILE_LABEL, make_answers, make_detections, write_rows

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
EVIL = f'{HOSTILE_LABEL}<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    rows = [*make_detections(), *make_answers(attack=EVIL, victim=EVIL)]
    rows += [row for nth in range(40) for row in make_answers(attack=f"word{nth:02}", attacked=60 + nth)]
    rows += make_answers(attack="word00", defense="finder", attacked=6)
    out = folder / "report.html"
    write_report([write_rows(folder / "rows.csv", rows)], out)
    return out


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, report):
    """Open the page in a window of its own; what the browser complains about and asks for is collected."""
    heard, contexts = [], []

    def go(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda asked: heard.append(asked.url) if asked.url != report.as_uri() else None)
        page.on("dialog", lambda dialog: heard.append(f"dialog {dialog.message}"))
        page.goto(report.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == [], "no error, no request, no dialog"


def count_overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_the_page_works(visit):
    page = visit(viewport={"width": 1280, "height": 900})
    assert page.title() == "made – Cowbird report"
    assert page.locator("#verdict img, #rows img, main script").count() == 0
    assert "<script>" in page.locator("#verdict").inner_text(), "a hostile label is text"
    assert count_overflow(page) <= 0
    assert page.locator("#count").inner_text() == "1 to 50 of 171 rows"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    page.locator("#search").focus()
    page.keyboard.type("word07 ASR_clean")
    assert page.locator("#count").inner_text() == "1 to 1 of 1 rows"
    assert page.locator("#grid tbody td").all_inner_texts()[2] == "word07"
    page.locator("#search").fill("nothing has this")
    assert page.locator("#count").inner_text() == "No row holds these words"
    page.locator("#search").fill("")
    page.locator("#next").press("Enter")
    assert page.locator("#count").inner_text() == "51 to 100 of 171 rows"
    with page.expect_download() as held:
        page.locator("#save").click()
    assert held.value.path().read_text(encoding="utf-8").count("\n") == 172


def test_dark_small_and_printed(visit):
    light, dark = ("rgb(253, 253, 251)", "rgb(20, 23, 26)")
    page = visit(viewport={"width": 360, "height": 740}, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert count_overflow(page) <= 0, "nothing is wider than a phone"
    assert page.evaluate(paper) == dark
    for wanted in (light, dark):
        page.locator("#theme").click()
        assert page.evaluate(paper) == wanted
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.locator("#rows").is_hidden()


def test_the_verdict_needs_no_script(visit):
    page = visit(java_script_enabled=False)
    assert "The attack works." in page.locator("#verdict").inner_text()
    assert page.locator("#explorer").is_hidden()
