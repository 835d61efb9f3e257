"""The code stands as the README's section "Architecture" says: its table is read, and held to."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from digitkaggle.sources import KERNEL_ENTRY, kernel_modules
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "digitkaggle"
IN_KAGGLES_IMAGE = {"torch", "numpy", "pandas", "scipy", "sklearn", "tqdm", "matplotlib"}


def floors() -> list[tuple[str, list[str]]]:
    """The floors from the top, each with its rooms, as the README has them."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Architecture\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return [(name.strip(), re.findall(r"`(\w+)`", rooms)) for name, _, rooms in rows[1:]]


FLOORS = floors()
LEVELS = {room: level for level, (_, rooms) in enumerate(reversed(FLOORS)) for room in rooms}
ROOMS = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(room: str) -> tuple[set[str], set[str]]:
    """The rooms, and the packages from outside, that a room imports anywhere, in functions too."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{room}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "digitkaggle." if node.level else ""
            bare = not node.module or node.module == "digitkaggle"
            names = [
                f"{start}{node.module or ''}.{alias.name}" if bare else start + node.module
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            parts = [part for part in name.split(".") if part]
            if parts[0] != "digitkaggle":
                outside.add(parts[0])
            else:
                inside.add(parts[1] if parts[1:] and parts[1] in ROOMS else "__init__")
    return inside, outside


def test_every_room_stands_on_one_floor_and_every_room_named_is_there():
    named = [room for _, rooms in FLOORS for room in rooms]
    assert sorted(named) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_its_own_floor_and_those_below_alone(room):
    upwards = {other for other in imports(room)[0] if LEVELS[other] > LEVELS[room]}
    assert not upwards


def test_nothing_imports_itself_round_a_circle():
    graph = {room: imports(room)[0] for room in ROOMS}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_what_the_kernel_reaches_imports_only_what_kaggle_has():
    assert KERNEL_ENTRY in kernel_modules()
    for room in kernel_modules():
        strange = imports(room)[1] - set(sys.stdlib_module_names) - IN_KAGGLES_IMAGE
        assert not strange, room
        assert imports(room)[0] <= set(kernel_modules()), room


def test_only_one_room_knows_kaggles_environment_and_only_the_desk_its_account():
    """STYLE's one place: paths and variables of Kaggle's machines are named nowhere else."""
    for room in ROOMS:
        text = (PACKAGE / f"{room}.py").read_text(encoding="utf-8")
        if "KAGGLE_KERNEL_RUN_TYPE" in text or '"/kaggle"' in text:
            assert room == "locations"
        if "KAGGLE_KEY" in text or "kagglesdk" in text:
            assert dict(FLOORS)["desk"].count(room) == 1, room
