from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("bundle", REPOSITORY / "kernel/bundle.py")
bundle = importlib.util.module_from_spec(spec)
sys.modules["bundle"] = bundle
spec.loader.exec_module(bundle)

ONE = '"""One.\n\nWhy one."""\n\nimport math\n\n# a comment that stays\nONE = math.floor(1.5)\n'
TWO = '"""Two."""\n\nimport math\n\nfrom .one import ONE\n\nTWO = ONE + math.floor(1.5)\n'


@pytest.fixture
def made(tmp_path):
    """The script and the notebook of a tiny core."""

    def make(**changed: str) -> tuple[str, str]:
        sources = {"__init__": '"""The title.\n\nThe text."""\n', "one": ONE, "two": TWO} | changed
        for name, text in sources.items():
            (tmp_path / f"{name}.py").write_text(text)
        return bundle.kernel(tmp_path, ("one", "two"))

    return make


def test_modules_stand_one_after_another_with_imports_once(made):
    script, _ = made()
    assert script.count("import math") == 1
    assert "from .one" not in script
    assert script.index("# %% One\n# Why one.") < script.index("# a comment that stays")
    assert script.index("ONE = math") < script.index("# %% Two") < script.index("TWO = ONE")
    names: dict[str, int] = {}
    exec(compile(script, "script", "exec"), names)
    assert names["TWO"] == 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", "docstring"),
        ('"""T."""\nimport requests\n', "requests may be missing"),
        ('"""T."""\nfrom math import *\n', "star import"),
        ('"""T."""\nfrom .one import ONE as one\n', "from .module import name"),
        ('"""T."""\nfrom .two import ONE\n', "comes later"),
        ('"""T."""\nONE = 2\n', "ONE is another thing"),
        ('"""T."""\nif 1:\n    import os\n', "conditional import"),
        ('"""T."""\neval("1")\n', "eval"),
    ],
)
def test_what_cannot_survive_in_one_file_is_refused_with_the_place(made, source, expected):
    with pytest.raises(bundle.BundleError, match=expected) as refusal:
        made(two=source)
    assert "two.py:" in str(refusal.value)


def test_a_module_that_is_missing_or_unknown_is_refused(made, tmp_path):
    (tmp_path / "three.py").write_text('"""T."""\n')
    with pytest.raises(bundle.BundleError, match="three"):
        made()


def test_the_kernel_in_the_repository_is_current():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "kernel/bundle.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
