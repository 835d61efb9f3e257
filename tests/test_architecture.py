"""Who may import whom, and how much there may be of it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "digitkaggle"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ALLOWED = {
    "core": {"core"},
    "runs": {"core", "runs"},
    "demo": {"core", "runs", "demo"},
    "tune": {"core", "runs"},
    "sample": {"core", "runs"},
    "classifier": {"core", "runs"},
    "export": {"core", "runs", "sample"},
    "report": {"core", "runs", "report"},
    "competition": {"core", "runs", "competition"},
    "cli": {"core", "runs", "demo", "tune", "sample", "report", "competition", "export"},
    "__init__": {"core", "runs", "report", "classifier"},
    "__main__": {"cli"},
}
IN_KAGGLES_IMAGE = {
    *("torch", "numpy", "pandas", "scipy", "sklearn", "joblib", "tqdm", "matplotlib"),
}


def part_of(path: Path) -> str:
    """The package or module of ours that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> tuple[set[str], set[str]]:
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
            inside |= {part_of(start / name.replace(".", "/")) for name in names}
    assert "digitkaggle" not in outside, path
    return inside, outside


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_what_it_may(path):
    assert imports(path)[0] <= ALLOWED[part_of(path)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda p: p.stem)
def test_the_core_imports_only_what_kaggle_has(path):
    assert imports(path)[1] <= {*sys.stdlib_module_names, *IN_KAGGLES_IMAGE}


def test_one_module_knows_kaggles_machines_and_one_package_its_account():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if "KAGGLE_KERNEL_RUN_TYPE" in text or '"/kaggle"' in text:
            assert path.name == "data.py"
        if "KAGGLE_KEY" in text or "kagglesdk" in text:
            assert part_of(path) == "competition"


def test_the_kernel_can_be_read_in_half_an_hour():
    kernel = (REPOSITORY / "kernel/main.py").read_text(encoding="utf-8").splitlines()
    assert len(kernel) <= 1600
    assert sum(line.startswith("# %% ") for line in kernel) <= 15
    assert kernel.index("def train(") < 900
