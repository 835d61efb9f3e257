"""How much is broken here."""

from __future__ import annotations

from tests.bad_input.test_data_files import DATA
from tests.bad_input.test_flags_and_settings import FLAGS, SETTINGS
from tests.bad_input.test_models_and_folders import FOLDERS, MODELS


def test_the_corpus_has_at_least_60_kinds():
    assert sum(map(len, (FLAGS, DATA, SETTINGS, MODELS, FOLDERS))) >= 60
