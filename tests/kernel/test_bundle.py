from __future__ import annotations

import json
import subprocess
import sys

import pytest

from digitkaggle.runs.source import compute_source_digest
from tests.conftest import REPOSITORY
from tests.kernel import bundle

ONE = '"""One.\n\nWhy one."""\n\nimport math\n\n# a comment that stays\nONE = math.floor(1.5)\n'
TWO = '"""Two."""\n\nimport math\n\nfrom .one import ONE\n\nTWO = ONE + math.floor(1.5)\n'
# A core whose second part begins with `device`; `one` imports from it inside a function.
EARLY = '''"""One."""

import math


def count() -> int:
    """A number from a later chapter."""
    from .device import LATER

    return LATER + math.floor(1.5)
'''
PARSING = (
    '"""Parsing."""\n\nimport math\nimport string\n\nLATER = len(string.digits) + math.floor(0.5)\n'
)
MAIN = '"""Main."""\n\nfrom .one import count\n\nTOTAL = count()\n'


@pytest.fixture
def build(tmp_path):
    """A function that returns the script and the notebook of a tiny core."""

    def build_tiny_kernel(**sources: str) -> tuple[str, str]:
        for name, text in ({"__init__": '"""The title.\n\nThe text."""\n'} | sources).items():
            (tmp_path / f"{name}.py").write_text(text)
        return bundle.build_kernel(tmp_path, tuple(sources))

    return build_tiny_kernel


def run_script(script: str) -> dict[str, object]:
    """Run a script; return the names that it binds."""
    names: dict[str, object] = {"__name__": "script"}
    exec(compile(script, "script", "exec"), names)
    return names


def test_modules_stand_one_after_another_with_their_imports_once(build):
    script, _ = build(one=ONE, two=TWO)
    assert script.count("import math") == 1
    assert "from .one" not in script
    assert script.index("# %% One\n# Why one.") < script.index("# a comment that stays")
    assert script.index("ONE = math") < script.index("# %% Two") < script.index("TWO = ONE")
    assert run_script(script)["TWO"] == 2


def test_a_local_import_becomes_a_comment_that_names_the_later_chapter(build):
    script, _ = build(one=EARLY, device=PARSING, main=MAIN)
    assert "from ." not in script
    comment = "    # LATER: see the chapter Parsing\n"
    assert f'    """A number from a later chapter."""\n{comment}    return LATER' in script
    assert run_script(script)["TOTAL"] == 11


@pytest.mark.parametrize("later", ["LATER", "math"])
def test_a_local_import_of_a_name_that_the_chapter_lacks_is_refused_with_the_place(build, later):
    early = EARLY.replace("import LATER", f"import {later}")
    device = PARSING.replace("LATER", "OTHER")
    with pytest.raises(bundle.BundleError, match=f"one.py:8: {later} is not defined in device.py"):
        build(one=early, device=device, main=MAIN)


def test_imports_that_only_the_second_part_needs_stand_below_its_heading(build):
    script, _ = build(one=EARLY, device=PARSING, main=MAIN)
    first, heading, second = script.partition(f"# %% {bundle.SKIP_TITLE}\n")
    assert heading
    assert "import math" in first
    assert "import string" not in first
    assert "import math" not in second
    assert second.index("import string") < second.index("# %% Parsing")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", "docstring"),
        ('"""T."""\nimport requests\n', "requests may be missing"),
        ('"""T."""\nfrom math import *\n', "star import"),
        ('"""T."""\nfrom .one import ONE as one\n', "from .module import name"),
        ('"""T."""\nfrom .two import ONE\n', "comes later"),
        ('"""T."""\nONE = 2\n', "ONE means something else"),
        ('"""T."""\nif 1:\n    import os\n', "conditional import"),
        ('"""T."""\neval("1")\n', "eval"),
    ],
)
def test_code_that_cannot_survive_in_one_file_is_refused_with_the_place(build, source, expected):
    with pytest.raises(bundle.BundleError, match=expected) as caught:
        build(one=ONE, two=source)
    assert "two.py:" in str(caught.value)


def test_a_module_that_is_missing_or_unknown_is_refused(build, tmp_path):
    (tmp_path / "three.py").write_text('"""T."""\n')
    with pytest.raises(bundle.BundleError, match="three"):
        build(one=ONE, two=TWO)


def test_the_kernel_in_the_repository_is_up_to_date_and_has_the_librarys_digest():
    command = [sys.executable, REPOSITORY / "kernel/bundle.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    digest = f'SOURCE_DIGEST = "{compute_source_digest()}"\n'
    assert (REPOSITORY / "kernel/main.py").read_text(encoding="utf-8").count(digest) == 1
    notebook = json.loads((REPOSITORY / "kernel/main.ipynb").read_text(encoding="utf-8"))
    assert sum("".join(cell["source"]).count(digest) for cell in notebook["cells"]) == 1


def test_the_kernels_chapters_stand_in_reading_order_and_the_first_part_takes_half_an_hour():
    lines = (REPOSITORY / "kernel/main.py").read_text(encoding="utf-8").splitlines()
    titles = [bundle.read_chapter(bundle.CORE, name).title for name in bundle.MODULES]
    skip = bundle.MODULES.index(bundle.FIRST_TO_SKIP)
    expected = [*titles[:skip], bundle.SKIP_TITLE, *titles[skip:]]
    headings = [line.removeprefix("# %% ") for line in lines if line.startswith("# %% ")]
    assert headings[1:] == expected
    assert bundle.MODULES[:skip] == (
        *("basics", "data", "settings", "split", "augment", "networks", "optimizers", "training"),
        *("prediction", "run"),
    )
    assert lines.index(f"# %% {bundle.SKIP_TITLE}") <= 900
    assert lines.index("def train(") < 600


def test_each_picture_of_the_notebook_stands_below_the_chapter_that_it_shows():
    notebook = json.loads((REPOSITORY / "kernel/main.ipynb").read_text(encoding="utf-8"))
    texts = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    shown, chapter = {}, ""
    for text in texts:
        heading = text.partition("\n")[0]
        if heading.startswith("## "):
            shown.setdefault(chapter, []).append(heading.removeprefix("## "))
        else:
            chapter = heading.removeprefix("# ")
    assert "| preset | accuracy" in texts[0], "it begins with what is reached"
    assert texts[1].startswith("# The data\n")
    assert {chapter: len(pictures) for chapter, pictures in shown.items()} == {
        "The data": 1,
        "Augmentation": 1,
        "The network": 1,
        bundle.SKIP_TITLE: 7,
    }
    first_words = [title.partition(",")[0] for title in shown["The data"] + shown["Augmentation"]]
    assert first_words == ["Forty digits", "One digit"]
