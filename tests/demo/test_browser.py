"""The drawing page in a real browser: Debian's chromium, or whichever CHROMIUM names."""

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
    """Where the page is served, by the command as a user gives it."""
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
    with playwright.sync_playwright() as started:
        # As root, as in a container, chromium runs only without its sandbox.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = started.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desk", "phone"])
def page(browser, address, request):
    """The page, open; what its console says and what it asks for are collected."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
    opened.faults = []
    opened.addresses = []
    opened.on("console", lambda message: opened.faults.append(message.text))
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
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
    # The answer to the last mark, not to one on the way.
    page.wait_for_function("() => document.querySelector('.desk').dataset.state === 'answered'")


def clear(page) -> None:
    page.get_by_role("button", name="Clear").click()


def test_ten_drawn_digits_are_named_with_shares_and_nothing_leaves_this_machine(page):
    said = {}
    for digit in STROKES:
        draw(page, digit)
        said[digit] = page.locator(".digit").inner_text()
        shares = [float(text.split()[0]) for text in page.locator(".percent").all_inner_texts()]
        assert len(shares) == 10
        assert sum(shares) == pytest.approx(100, abs=0.6)
        assert page.locator(".seen").evaluate("image => image.naturalWidth") == 28
        clear(page)
        assert not page.locator(".seen").is_visible()
    assert sum(said[digit] == str(digit) for digit in said) >= 9, said
    here = re.compile(r"(data|blob):|https?://127\.0\.0\.1[:/]")
    assert [address for address in page.addresses if not here.match(address)] == []
    assert page.faults == []


def ink_on(page) -> int:
    return page.locator("canvas").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter(v => v).length"
    )


def test_clear_takes_drawing_and_answer_away_by_mouse_and_by_keyboard(page):
    for how in (lambda: clear(page), lambda: page.keyboard.press("Escape")):
        draw(page, 5)
        assert ink_on(page) > 0
        how()
        assert ink_on(page) == 0
        assert page.locator(".digit").inner_text() == ""
        assert "Nothing is drawn yet" in page.locator(".words").inner_text()
    assert page.faults == []


def test_the_page_fits_its_window_and_lies_on_one_screen_of_a_desk(page):
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
