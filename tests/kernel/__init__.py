"""What the tests of the kernel share: `kernel/bundle.py`, which is a program, as a module."""

from __future__ import annotations

import importlib.util
import sys

from tests.conftest import REPOSITORY

_spec = importlib.util.spec_from_file_location("bundle", REPOSITORY / "kernel/bundle.py")
bundle = importlib.util.module_from_spec(_spec)
sys.modules["bundle"] = bundle  # where dataclasses look for their module
_spec.loader.exec_module(bundle)
