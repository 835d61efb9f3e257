"""The flattener, on tiny packages with known answers and on our own."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.flatten import Chapter, flatten
from digitkaggle.flatten_rules import BundleError
from digitkaggle.kernel_story import CHAPTERS
from digitkaggle.sources import PACKAGE, SourcesError, kernel_modules, source_digest
from tests.conftest import REPOSITORY

BUNDLE = REPOSITORY / "kernel/bundle.py"


@pytest.fixture(scope="module")
def bundle():
    """kernel/bundle.py as a module."""
    spec = importlib.util.spec_from_file_location("bundle", BUNDLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bundle"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bundle"]


GOOD = {
    "main": '''"""The entry."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .shapes import area, describe

SOURCE_DIGEST = ""


def main(arguments: Sequence[str]) -> int:
    """Print what is asked."""
    print(describe(area(3, 4)), *arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
''',
    "shapes": '''"""Shapes: areas and words.

A second line, with  two  spaces that must survive.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .units import (
    UNIT,
    Unit,
)

# A comment that explains why.
WORDS: Mapping[str, str] = {"area":   "an area of"}   # odd layout, kept


def area(width: float, height: float) -> float:
    """Width times height."""
    text = """
from nowhere import nothing


# no comment
"""
    assert text
    return float(np.prod([width, height])) + math.floor(0.5)


def describe(value: float, _: Sequence[str] = ()) -> str:
    return f"{WORDS['area']} {value:g} {UNIT}"


OTHER = Unit
''',
    "units": '''"""Units."""

UNIT = "m2"


class Unit:
    """A unit."""
''',
}


def package(folder: Path, **modules: str) -> Path:
    """A package of these modules; each gets a docstring if it has none."""
    path = folder / "pack"
    path.mkdir()
    (path / "__init__.py").write_text("")
    for name, source in modules.items():
        text = source if source.startswith('"""') else f'"""Module {name}."""\n{source}'
        (path / f"{name}.py").write_text(text)
    return path


def test_a_flattened_package_does_what_the_package_does(tmp_path):
    path = package(tmp_path, **GOOD)
    script = tmp_path / "script.py"
    script.write_text(flatten(path, "main", "0123"))
    path.rename(tmp_path / "gone")
    printed = subprocess.check_output([sys.executable, "-I", script, "hello"], text=True)
    assert printed == "an area of 12 m2 hello\n"


def test_everything_but_imports_survives_to_the_letter_in_the_order_of_need(tmp_path):
    script = flatten(package(tmp_path, **GOOD), "main", "0123")
    shapes = GOOD["shapes"]
    assert shapes[: shapes.index("import math")].rstrip() in script
    assert shapes[shapes.index("# A comment") :].rstrip() in script
    entry = GOOD["main"].replace('SOURCE_DIGEST = ""', 'SOURCE_DIGEST = "0123"')
    assert script.endswith(entry[entry.index("SOURCE_DIGEST") :])
    places = [script.index(f"# ## {n}. pack/{name}.py") for n, name in
              enumerate(("units", "shapes", "main"), start=1)]  # fmt: skip
    assert places == sorted(places)


def test_outside_imports_come_once_sorted_at_the_top(tmp_path):
    script = flatten(package(tmp_path, **GOOD), "main", "0123")
    block = """\
from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
"""
    assert script.count(block) == 1
    imports = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.ImportFrom)]
    assert len(imports) == 2


def test_the_header_has_contents_digest_and_the_command_that_makes_it(tmp_path):
    script = flatten(package(tmp_path, **GOOD), "main", "0123")
    head = script.partition('\n"""')[0]
    assert "make kernel" in head
    assert "`0123`" in head
    assert "# 2. `shapes`: Shapes: areas and words" in head


def test_the_same_sources_give_the_same_bytes_without_paths_or_carriage_returns(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = flatten(package(tmp_path / "a", **GOOD), "main", "0123")
    second = flatten(package(tmp_path / "b", **GOOD), "main", "0123")
    assert first == second
    assert str(tmp_path) not in first
    assert "\r" not in first


def test_a_circle_is_refused_with_the_way_round(tmp_path):
    path = package(
        tmp_path,
        main="from .a import x",
        a="from .b import y\nx = 1",
        b="from .c import z\ny = 1",
        c="from .a import x\nz = 1",
    )
    with pytest.raises(SourcesError, match="a -> b -> c -> a"):
        kernel_modules(path, "main")


def test_an_import_of_a_module_that_is_not_there_is_refused(tmp_path):
    path = package(tmp_path, main="from .nothing import x")
    with pytest.raises(SourcesError, match="main imports nothing, which is not there"):
        kernel_modules(path, "main")


FORM = "from .module import name"
REFUSALS = {
    "from . import other": FORM,
    "from .. import other": FORM,
    "from .other import name as n": FORM,
    "from .other import *": "star import",
    "from math import *": "star import",
    "import pack.other": FORM,
    "from pack.other import name": FORM,
    "def f():\n    from .other import name": "at top level",
    "try:\n    import json\nexcept ImportError:\n    json = None": "conditional import",
    "if 1 > 0:\n    import json": "conditional import",
    "def f():\n    if f:\n        import json": "conditional import",
    "with open('x') as f:\n    import json": "conditional import",
    "exec('1')": "exec",
    "x = eval('1')": "eval",
    "x = globals()": "globals",
    "x = __import__('json')": "__import__",
    "x = __file__": "__file__",
    "x = __name__": "__name__",
    "x = __doc__": "__doc__",
    "import importlib": "importlib",
    "from importlib import resources": "importlib",
    "import pkgutil": "pkgutil",
    "def f():\n    import importlib.resources": "importlib",
    "import kaggle": "kaggle may be missing on Kaggle",
    "def f():\n    import mlxtend.data": "mlxtend may be missing on Kaggle",
    "if __name__ == '__main__':\n    pass": "main guard",
    "import json  # why": "comment on an import",
    "from json import (\n    dumps,  # why\n)": "comment on an import",
    "import json; x = 1": "shares its line",
    "from .other import missing": "defines no missing",
}


@pytest.mark.parametrize("source", REFUSALS)
def test_what_cannot_survive_is_refused_with_file_and_line(tmp_path, source):
    path = package(
        tmp_path, main="from .bad import done", other="name = 1", bad=f"done = 1\n{source}"
    )
    with pytest.raises(BundleError) as caught:
        flatten(path, "main", "0123")
    line = 3 + next(
        (n for n, text in enumerate(source.splitlines()) if "import" in text or "__" in text), 0
    )
    assert str(caught.value).startswith(f"pack/bad.py:{line}: ")
    assert REFUSALS[source] in str(caught.value)


def test_a_module_without_a_docstring_is_refused(tmp_path):
    path = package(tmp_path, main="from .bad import done")
    (path / "bad.py").write_text("done = 1\n")
    with pytest.raises(BundleError, match=r"pack/bad.py:1: the module has no docstring"):
        flatten(path, "main", "0123")


CLASHES = {
    "two constants": ("x = 1", "x = 2", "x"),
    "function and class": ("def x(): pass", "class x: pass", "x"),
    "loop variable": ("for i in []: pass", "i = 1", "i"),
    "name in a try": ("try:\n    x = 1\nexcept ValueError as e:\n    pass", "x = 2", "x"),
    "unpacking": ("(a, (b, *c)) = 1, (2, 3)", "c = 1", "c"),
    "annotated": ("x: int = 1", "x = 2", "x"),
    "walrus": ("print(x := 1)", "x = 2", "x"),
    "import and name": ("import json", "json = 1", "json"),
    "two imports": ("from json import dumps as d", "from pickle import dumps as d", "d"),
    "import and its attribute": ("import time", "from time import time", "time"),
}


@pytest.mark.parametrize("clash", CLASHES)
def test_a_clash_is_refused_with_both_places(tmp_path, clash):
    first, second, name = CLASHES[clash]
    path = package(tmp_path, main="from .a import one\nfrom .b import two",
                   a=f"one = 1\n{first}", b=f"two = 1\n{second}")  # fmt: skip
    with pytest.raises(BundleError) as caught:
        flatten(path, "main", "0123")
    places = r"pack/a\.py:[34] and pack/b\.py:3; rename one"
    assert re.fullmatch(f"{name} means two things: {places}", str(caught.value))


def test_the_same_import_in_two_modules_is_no_clash_nor_are_names_inside_functions(tmp_path):
    path = package(
        tmp_path,
        main="from .a import one\nfrom .b import two",
        a="import os.path\nfrom json import dumps\none = [x for x in ()]\ndef f():\n    y = dumps",
        b="import os\nfrom json import dumps\ntwo = [x for x in ()]\ndef g():\n    y = os, dumps",
    )
    assert "import os\n" in flatten(path, "main", "0123")


STORY = (
    Chapter("Beginnings", "Why there are *units*.", ("units",)),
    Chapter("Ends", "What it is for.\n\n- a list", ("main", "shapes")),
)


def test_chapters_stand_above_their_modules_and_in_the_contents(tmp_path):
    script = flatten(package(tmp_path, **GOOD), "main", "0123", introduction="Hi.", chapters=STORY)
    head, _, rest = script.partition('\n"""')
    assert re.search(r"# Hi\.[^$]+\*\*Beginnings\*\*\n#\n# 1\. `units`[^$]+\*\*Ends\*\*", head)
    begun = rest.index("# %% [markdown]\n# # Ends\n#\n# What it is for.\n#\n# - a list\n")
    assert rest.index("pack/units.py") < begun < rest.index("pack/shapes.py")
    assert rest.count("# # ") == 2


def test_the_order_of_chapters_yields_to_what_modules_need(tmp_path):
    path = package(tmp_path, **GOOD)
    order = kernel_modules(path, "main", order=("main", "shapes", "units"))
    assert order == ["units", "shapes", "main"]


def test_a_modules_docstring_is_the_text_above_its_code(tmp_path):
    script = flatten(package(tmp_path, **GOOD), "main", "0123")
    assert '# ## 1. pack/units.py\n\n# %% [markdown]\n"""Units."""\n\n# %%\nUNIT' in script


def test_our_story_has_every_module_of_the_kernel_once_and_its_chapters_hold_together():
    told = [name for chapter in CHAPTERS for name in chapter.modules]
    modules = kernel_modules(order=told)
    assert sorted(told) == sorted(modules)
    homes = [chapter.title for name in modules for chapter in CHAPTERS if name in chapter.modules]
    assert list(dict.fromkeys(homes)) == [chapter.title for chapter in CHAPTERS]
    assert homes == sorted(homes, key=[chapter.title for chapter in CHAPTERS].index)


def test_our_kernel_is_made_of_what_it_needs_and_never_of_the_desk():
    modules = kernel_modules()
    assert modules[-1] == "kernel_main"
    desk = {"cli", "competition", "sample", "sources", "kernel_metadata", "__init__", "__main__"}
    assert not desk & set(modules)
    assert {"pipeline", "training", "networks", "data"} <= set(modules)


def test_our_kernel_imports_only_what_kaggle_has():
    tree = ast.parse(flatten(PACKAGE, "kernel_main", "0123"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(node.module.partition(".")[0])
    allowed = {"torch", "numpy", "pandas", "scipy", "sklearn", "tqdm", "matplotlib"}
    assert roots - set(sys.stdlib_module_names) <= allowed


def test_our_kernel_passes_ruff_for_every_python(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(flatten(PACKAGE, "kernel_main", source_digest()))
    for version in ("py311", "py312", "py313"):
        subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--config", REPOSITORY / "pyproject.toml",
             "--target-version", version, script],
            check=True,
        )  # fmt: skip


def test_making_the_kernel_twice_changes_nothing_and_check_says_whether_it_is_current(
    bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bundle, "KERNEL_FOLDER", tmp_path)
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    assert bundle.main([]) == 0
    files = ("kernel-metadata.json", "main.ipynb", "main.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(files)
    first = [(tmp_path / name).read_bytes() for name in files]
    assert bundle.main([]) == 0
    assert [(tmp_path / name).read_bytes() for name in files] == first

    for name in ("main.py", "main.ipynb"):
        assert bundle.main(["--check", str(tmp_path / name)]) == 0
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
        assert bundle.main(["--check", str(tmp_path / name)]) == 1
        assert "not current: run make kernel" in capsys.readouterr().out
    assert bundle.main(["--check", str(tmp_path / "none.py")]) == 1


def test_the_digest_follows_the_kernels_sources_and_nothing_else(tmp_path):
    path = package(tmp_path, **GOOD)
    digest = source_digest(path, "main")
    (path / "elsewhere.py").write_text("x = 1")
    assert source_digest(path, "main") == digest
    (path / "units.py").write_text(GOOD["units"] + "\n# changed\n")
    assert source_digest(path, "main") != digest
