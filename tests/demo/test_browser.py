"""The drawing page in a real browser: Debian's chromium, or the one that CHROMIUM names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.demo.strokes import STROKES

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def address(trained) -> Iterator[str]:
    """The address of the page, served by the command that a user runs."""
    pytest.importorskip("gradio", reason="Gradio is not installed: make test-browser installs it")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "digitkaggle", "demo", trained, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            break
    assert found, "the page was not served"
    yield found[0]
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: make test-browser installs it"
    )
    names = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else BROWSERS
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no chromium here: install it, or name one in CHROMIUM")
    with playwright.sync_playwright() as engines:
        # As root, as in a container, chromium runs only without its sandbox.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = engines.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(browser, address, request):
    """The page, open; its console messages and the addresses it requests are collected."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
    opened.errors = []
    opened.addresses = []
    opened.on("console", lambda message: opened.errors.append(message.text))
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("request", lambda request: opened.addresses.append(request.url))
    opened.goto(address)
    opened.wait_for_selector("canvas")
    yield opened
    opened.close()


def draw(page, digit: int) -> None:
    box = page.locator("canvas").bounding_box()
    for stroke in STROKES[digit]:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=2)
        page.mouse.up()
    # The prediction after the last mark, not after an earlier one.
    page.wait_for_function("() => document.querySelector('.desk').dataset.state === 'answered'")


def clear(page) -> None:
    page.get_by_role("button", name="Clear").click()


def test_ten_drawn_digits_are_predicted_with_probabilities_and_nothing_leaves_this_machine(page):
    predicted = {}
    for digit in STROKES:
        draw(page, digit)
        predicted[digit] = page.locator(".digit").inner_text()
        texts = page.locator(".percent").all_inner_texts()
        assert len(texts) == 10
        assert sum(float(text.split()[0]) for text in texts) == pytest.approx(100, abs=0.6)
        assert page.locator(".seen").evaluate("image => image.naturalWidth") == 28
        clear(page)
        assert not page.locator(".seen").is_visible()
    assert sum(predicted[digit] == str(digit) for digit in predicted) >= 9, predicted
    local = re.compile(r"(data|blob):|https?://127\.0\.0\.1[:/]")
    assert [address for address in page.addresses if not local.match(address)] == []
    assert page.errors == []


def count_ink(page) -> int:
    return page.locator("canvas").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter(v => v).length"
    )


def test_clear_removes_drawing_and_prediction_by_mouse_and_by_keyboard(page):
    for clear_page in (lambda: clear(page), lambda: page.keyboard.press("Escape")):
        draw(page, 5)
        assert count_ink(page) > 0
        clear_page()
        assert count_ink(page) == 0
        assert page.locator(".digit").inner_text() == ""
        assert "Nothing is drawn yet" in page.locator(".words").inner_text()
    assert page.errors == []


def test_the_page_is_not_wider_than_its_window(page):
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
