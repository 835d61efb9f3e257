"""The page in a real browser, from disk: Debian's chromium, or the one that CHROMIUM names."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from digitkaggle.cli import main
from digitkaggle.core.layers import GlobalMaxPool
from digitkaggle.core.prediction import Model
from digitkaggle.core.settings import make_settings
from digitkaggle.demo import layers
from digitkaggle.demo.digits import NO_DIGIT, find_digits
from digitkaggle.demo.pictures import Picture, open_picture
from digitkaggle.demo.predictions import SEVERAL, predict_found
from digitkaggle.runs.finished import load_model
from tests.conftest import QUICK_FLAGS
from tests.core import CPU
from tests.demo.strokes import STROKES, Stroke

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRAWINGS = 100


@pytest.fixture(scope="session")
def page_file(trained, tmp_path_factory) -> Path:
    """The page of an accurate run."""
    out = tmp_path_factory.mktemp("page") / "digits.html"
    assert main(["export", str(trained), "--out", str(out)]) == 0
    return out


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


@pytest.fixture
def open_page(browser) -> Iterator:
    """A function that opens a page; it must report no error, and request nothing but itself."""
    contexts = []

    def open_url(url: str, **options):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        page = context.new_page()
        contexts.append((context, page))
        page.errors, page.addresses = [], []
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.addresses.append(request.url))
        page.goto(url)
        return page

    yield open_url
    for context, page in contexts:
        assert page.errors == []
        # The workers' programs, which the page itself makes.
        requested = [address for address in page.addresses if not address.startswith("blob:")]
        assert len(requested) == 1, requested
        context.close()


@pytest.fixture(params=[(1200, "light"), (320, "dark")], ids=["desktop", "phone"])
def page(open_page, page_file, request):
    """The page from disk, in a wide window and in the narrowest."""
    width, scheme = request.param
    size = {"width": width, "height": 900}
    return open_page(page_file.as_uri(), viewport=size, color_scheme=scheme, has_touch=True)


@pytest.fixture
def wide_page(open_page, page_file):
    return open_page(page_file.as_uri())


def place_strokes(page, strokes: list[Stroke]) -> list[Stroke]:
    """Strokes of a unit square as points of the window."""
    page.locator(".drawing").scroll_into_view_if_needed()
    box = page.locator(".drawing").bounding_box()
    width, height = box["width"], box["height"]
    return [
        [(box["x"] + x * width, box["y"] + y * height) for x, y in stroke] for stroke in strokes
    ]


def draw(page, strokes: list[Stroke]) -> None:
    """Draw by mouse, and wait for the whole model's answer."""
    for first, *others in place_strokes(page, strokes):
        page.mouse.move(*first)
        page.mouse.down()
        for point in others:
            page.mouse.move(*point)
        page.mouse.up()
    wait_for_answer(page)


def draw_by_touch(page, strokes: list[Stroke]) -> None:
    """Draw by a finger, as the browser's own protocol moves it."""
    protocol = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        event = {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
        protocol.send("Input.dispatchTouchEvent", event)

    for first, *others in place_strokes(page, strokes):
        touch("touchStart", first)
        for point in others:
            touch("touchMove", point)
        touch("touchEnd")
    wait_for_answer(page)


def wait_for_answer(page) -> None:
    page.wait_for_function("() => document.querySelector('.desk').dataset.state === 'answered'")


def click(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def count_ink(page) -> int:
    return page.locator(".drawing").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter(v => v).length"
    )


def read_gray(page, selector: str) -> np.ndarray:
    """The gray values of a canvas, 28 x 28."""
    values = page.locator(selector).evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data)"
    )
    return np.array(values).reshape(28, 28, 4)[..., 0]


def read_answer(page) -> tuple[str, str]:
    """The digit and the words beside it."""
    return page.locator(".digit").inner_text(), page.locator(".words").inner_text()


def predict_images(page, images: torch.Tensor) -> np.ndarray:
    """The page's probabilities for images, uint8, N x 1 x 28 x 28."""
    script = "images => Promise.all(images.map(window.predict))"
    return np.array(page.evaluate(script, images.flatten(1).tolist()))


@pytest.mark.parametrize("members", [1, 2])
def test_the_pages_probabilities_are_the_models(members, trained, tmp_path, open_page, sample):
    run, out = trained, tmp_path / "digits.html"
    if members > 1:
        run = tmp_path / "run"
        flags = ["--members", "2", "--views", "7", "--sample", "--out", str(run)]
        assert main([*QUICK_FLAGS, *flags]) == 0
    assert main(["export", str(run), "--out", str(out)]) == 0
    predicted = predict_images(open_page(out.as_uri()), sample.test_images)
    expected = load_model(run, compute=CPU).predict(sample.test_images).numpy()
    assert predicted.shape == (1000, 10)
    assert np.abs(predicted - expected).max() < 0.01
    # Half precision may decide only where two classes are equal but for that.
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > 0.02
    assert (predicted.argmax(axis=1) == expected.argmax(axis=1))[clear].all()
    assert clear.sum() > 100


@pytest.mark.parametrize("last", [GlobalMaxPool(), nn.AdaptiveAvgPool2d(1), nn.MaxPool2d(3, 2)])
def test_every_layer_computes_what_torchs_does(last, browser, sample):
    torch.manual_seed(0)
    # From dark to bright, so that even means differ.
    images = (sample.test_images[:50] * torch.linspace(0, 1, 50).view(-1, 1, 1, 1)).byte()
    inputs = 6 * 3 * 3 if isinstance(last, nn.MaxPool2d) else 6
    network = nn.Sequential(
        *(nn.Conv2d(1, 5, 5, stride=2, padding=1), nn.BatchNorm2d(5, momentum=1), nn.ReLU()),
        *(nn.Conv2d(5, 6, 3, padding=2, bias=False), nn.MaxPool2d(2)),
        *(nn.BatchNorm2d(6, momentum=1), last, nn.Flatten()),
        *(nn.Linear(inputs, 7), nn.ReLU(), nn.Linear(7, 10)),
    )
    for values in network.parameters():  # negative scales too
        nn.init.normal_(values, std=0.7)
    with torch.no_grad():
        network(images / 255)  # the statistics of batch normalization
        logits = network.eval()(images / 255)
        network[-1].bias.sub_(logits.mean(dim=0))
        for values in network[-1].parameters():
            values.mul_(2 / logits.std(dim=0).mean())
    model = Model([network], make_settings("fast", {"views": 7}), CPU)
    text = json.dumps(layers.convert_model(model))
    page = browser.new_page()
    page.add_script_tag(path=Path(layers.__file__).with_name("network.js"))
    script = "([text, images]) => images.map((image) => predict(loadModel(text), image))"
    predicted = page.evaluate(script, [text, images.flatten(1).tolist()])
    expected = model.predict(images)
    assert expected.std(dim=0).max() > 0.1, "the images differ"
    np.testing.assert_allclose(predicted, expected, atol=0.01)
    page.close()


@pytest.mark.parametrize("draw_strokes", [draw, draw_by_touch], ids=["mouse", "touch"])
def test_ten_drawn_digits_are_recognized(page, draw_strokes):
    answers = {}
    for digit, strokes in STROKES.items():
        draw_strokes(page, strokes)
        answers[digit] = read_answer(page)[0]
        texts = page.locator(".percent").all_inner_texts()
        assert len(texts) == 10
        assert sum(float(text.rstrip("%")) for text in texts) == pytest.approx(100, abs=0.6)
        click(page, "Clear")
    assert answers == {digit: str(digit) for digit in STROKES}


def test_everything_fits_into_the_window(page):
    draw(page, STROKES[8])
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    for name in ("Undo", "Clear"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["height"] >= 40, "a finger's width"


def test_clear_and_undo_work_by_mouse_and_by_keyboard(page):
    for clear_page in (lambda: click(page, "Clear"), lambda: page.keyboard.press("Escape")):
        draw(page, STROKES[5])
        clear_page()
        assert count_ink(page) == 0
        assert read_answer(page) == ("", "")
        assert not page.locator(".seen").is_visible()
    for undo in (lambda: click(page, "Undo"), lambda: page.keyboard.press("Control+z")):
        draw(page, STROKES[1])
        once = read_gray(page, ".seen")
        draw(page, [[(0.1, 0.1), (0.9, 0.9)]])
        assert (read_gray(page, ".seen") != once).any()
        undo()
        wait_for_answer(page)
        assert (read_gray(page, ".seen") == once).all()
        undo()
        assert read_answer(page) == ("", "")
        undo()  # of nothing
        assert count_ink(page) == 0


def test_nothing_is_said_of_an_empty_page_and_the_answer_is_announced(wide_page):
    assert read_answer(wide_page) == ("", "")
    status = wide_page.get_by_role("status")
    assert status.inner_text() == ""
    draw(wide_page, STROKES[4])
    assert re.fullmatch(r"4 confidence \d+\.\d%", status.inner_text())


def draw_other_marks() -> dict[str, tuple[list[Stroke], str]]:
    snake = [(x, y) for x in (0.15, 0.5, 0.85) for y in (0.1, 0.9)]
    scribble = [snake[place] for place in (0, 1, 3, 2, 4, 5)]  # down, up, down
    scribble += [(y, x) for x, y in scribble]  # and across
    half = [[(x / 2, y) for x, y in stroke] for stroke in STROKES[3]]
    beside = [[(x / 2 + 0.5, y) for x, y in stroke] for stroke in STROKES[7]]
    return {
        "scribble": ([scribble], NO_DIGIT),
        "dash": ([[(0.15, 0.5), (0.85, 0.5)]], NO_DIGIT),
        "two digits": (half + beside, SEVERAL),
    }


@pytest.mark.parametrize("name", draw_other_marks())
def test_other_marks_get_no_digit_but_the_reason_that_predict_gives(wide_page, name):
    strokes, problem = draw_other_marks()[name]
    draw(wide_page, strokes)
    assert read_answer(wide_page) == ("", problem[0].upper() + problem[1:])
    found = find_digits(read_drawing(wide_page))
    assert problem == (SEVERAL if len(found.digits) > 1 else found.problem)


def test_an_unclear_drawing_gets_the_digit_that_predict_gives_or_a_reason_too(wide_page, trained):
    model = load_model(trained, compute=CPU)
    for seed in range(5):
        random = np.random.default_rng(seed)
        draw(wide_page, [[tuple(point) for point in random.uniform(0.1, 0.9, (9, 2)).tolist()]])
        found = find_digits(read_drawing(wide_page))
        # The page does not measure strangeness.
        [expected] = predict_found([found], model, {}, single=True)
        digit, words = read_answer(wide_page)
        assert digit == ("" if expected.digit is None else str(expected.digit))
        # Maybe another reason: the page does not take long straight strokes for printed lines.
        assert bool(expected.problem) == bool(not digit and words)
        click(wide_page, "Clear")


def read_drawing(page) -> Picture:
    """The drawing as `predict` reads its PNG."""
    return open_picture(io.BytesIO(save_drawing(page)))


def save_drawing(page) -> bytes:
    script = """c => new Promise((resolve) => c.toBlob(async (blob) =>
        resolve(Array.from(new Uint8Array(await blob.arrayBuffer())))))"""
    return bytes(page.locator(".drawing").evaluate(script))


def vary(strokes: list[Stroke], random: np.random.Generator) -> list[Stroke]:
    """Strokes turned, scaled, moved and made a little uneven, within the paper."""
    angle, scale = np.deg2rad(random.uniform(-12, 12)), random.uniform(0.6, 1.3, 2)
    shift = random.uniform(-0.12, 0.12, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = [0.5 + shift + (np.array(s) - 0.5) @ turn.T * scale for s in strokes]
    noisy = [points + random.normal(0, 0.004, points.shape) for points in moved]
    return [[tuple(point) for point in points.clip(0.04, 0.96).tolist()] for points in noisy]


def test_python_and_the_page_bring_a_hundred_drawings_to_the_same_form(wide_page, trained):
    random = np.random.default_rng(0)
    model = load_model(trained, compute=CPU)
    seen, found, answers = [], [], []
    for number in range(DRAWINGS):
        draw(wide_page, vary(STROKES[number % 10], random))
        seen.append(read_gray(wide_page, ".seen"))
        answers.append(read_answer(wide_page)[0])
        found.append(find_digits(read_drawing(wide_page)))
        click(wide_page, "Clear")
    predictions = predict_found(found, model, {}, single=True)
    expected = [prediction.digit for prediction in predictions]
    pairs = [(a, b.digits[0].image) for a, b in zip(seen, found, strict=True) if len(b.digits) == 1]
    differences = [np.abs(a - b.astype(int)).mean() for a, b in pairs]
    assert len(pairs) >= 0.95 * DRAWINGS
    assert max(differences) <= 4
    assert answers == ["" if digit is None else str(digit) for digit in expected]


def test_a_held_out_digit_is_answered_when_it_is_clicked_or_chosen_by_keyboard(wide_page, trained):
    buttons = wide_page.get_by_role("button", name="Held-out digit")
    assert buttons.count() == 40
    shown = []
    for number in range(40):
        button = buttons.nth(number)
        button.focus()
        wide_page.keyboard.press("Enter")
        wait_for_answer(wide_page)
        answer, words = read_answer(wide_page)
        assert button.get_attribute("aria-pressed") == "true"
        shown.append(answer == button.get_attribute("data-label"))
        assert words.endswith(": correct") == shown[-1]
        image = read_gray(wide_page, f".try [data-digit='{number}']")
        assert (image == read_gray(wide_page, ".seen")).all()
    assert np.mean(shown) > 0.9
    draw(wide_page, STROKES[2])
    assert wide_page.locator("[aria-pressed=true]").count() == 0
    assert read_answer(wide_page)[0] == "2"


@pytest.mark.parametrize(
    "pixels", ["[]", "Array(783).fill(0)", "Array(784).fill(256)", "Array(784).fill('x')"]
)
def test_other_than_784_numbers_from_0_to_255_are_refused(wide_page, pixels):
    script = f"window.predict({pixels}).catch((error) => `${{error.name}}: ${{error.message}}`)"
    assert wide_page.evaluate(script) == "RangeError: predict takes 784 numbers from 0 to 255"


def test_demo_serves_the_page_as_a_user_runs_it(trained, tmp_path, open_page):
    model = shutil.copy(trained / "model.pt", tmp_path)
    command = [sys.executable, "-u", "-m", "digitkaggle", "demo", model, "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        lines = iter(process.stdout.readline, "")
        address = next(filter(None, (re.search(r"http://127\S+/", line) for line in lines)))[0]
        page = open_page(address)
        draw(page, STROKES[6])
        assert read_answer(page)[0] == "6"
    finally:
        process.terminate()
        _, code = process.communicate(timeout=30), process.returncode
    assert code == 0
