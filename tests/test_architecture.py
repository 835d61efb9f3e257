"""Who may import whom, what an import costs, and what where each public name is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import digitkaggle
from tests.conftest import REPOSITORY
from tests.kernel import bundle

PACKAGE = REPOSITORY / "digitkaggle"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ALLOWED = {
    "core": {"core"},
    "runs": {"core", "runs"},
    "demo": {"core", "runs", "demo"},
    "tune": {"core", "runs"},
    "sample": {"core", "runs"},
    "classifier": {"core", "runs"},
    "export": {"core", "runs", "sample", "demo"},
    "report": {"core", "runs", "report"},
    "competition": {"core", "runs", "competition"},
    "handlers": {"core", "runs", "demo", "tune", "sample", "report", "export"},
    "cli": {"core", "runs", "report", "competition", "handlers"},
    "__init__": {"core", "runs", "report", "classifier"},
    "__main__": {"cli", "runs"},
}


def get_part(path: Path) -> str:
    """The package or module of ours that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def find_imports(path: Path) -> tuple[set[str], set[str]]:
    """The parts of ours, and the packages from outside, that a module imports anywhere."""
    inside, outside = set(), set()
    folder = path.parent
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outside.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            start = folder
            for _ in range(node.level - 1):
                start = start.parent
            names = [node.module] if node.module else [alias.name for alias in node.names]
            inside |= {get_part(start / name.replace(".", "/")) for name in names}
    assert "digitkaggle" not in outside, path
    return inside, outside


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_what_it_may(path):
    assert find_imports(path)[0] <= ALLOWED[get_part(path)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda p: p.stem)
def test_the_core_imports_only_what_kaggle_has(path):
    assert find_imports(path)[1] <= {*sys.stdlib_module_names, *bundle.KAGGLE_PACKAGES}


def test_one_module_knows_kaggles_machines_and_one_package_its_account():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if "KAGGLE_KERNEL_RUN_TYPE" in text or '"/kaggle"' in text:
            assert path == PACKAGE / "core/kaggle.py"
        if "KAGGLE_KEY" in text or "kagglesdk" in text:
            assert get_part(path) == "competition"


def test_an_import_of_the_package_does_not_import_torch():
    code = "import sys, digitkaggle; print(*{'torch', 'numpy', 'sklearn'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", [*digitkaggle.__all__, "__version__"])
def test_every_public_name_is_found_in_its_module(name):
    assert getattr(digitkaggle, name) is not None
    assert name in dir(digitkaggle) or name == "__version__"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sample_digits'"):
        digitkaggle.sample_digits  # noqa: B018
    assert not hasattr(digitkaggle, "sample_digits")
