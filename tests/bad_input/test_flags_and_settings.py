"""Wrong flags, and settings files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.conftest import RUN, assert_refused

# Flags added to a good command, and what is said of them.
FLAGS = {
    "no members": (["--members", "0"], "members 0 is outside [1, 1000]"),
    "too many members": (["--members", "1001"], "members 1001 is outside"),
    "half a member": (["--members", "1.5"], "--members: invalid int value"),
    "no epochs": (["--epochs", "-3"], "epochs -3 is outside"),
    "epochs for ever": (["--epochs", "1000000000000"], "epochs 1000000000000 is outside"),
    "epochs in floats": (["--epochs", "1e3"], "--epochs: invalid int value: '1e3'"),
    "epochs unsaid": (["--epochs"], "--epochs: expected one argument"),
    "batch of nothing": (["--batch-size", "0"], "batch_size 0 is outside"),
    "pieces below nothing": (["--piece-size", "-1"], "piece_size -1 is outside"),
    "nothing held out": (["--validation-fraction", "0"], "validation_fraction 0.0 is outside"),
    "all held out": (["--validation-fraction", "1"], "validation_fraction 1.0 is outside"),
    "nan held out": (["--validation-fraction", "nan"], "validation_fraction nan is outside"),
    "rate of nothing": (["--learning-rate", "0"], "learning_rate 0.0 is outside"),
    "rate below nothing": (["--learning-rate", "-1"], "learning_rate -1.0 is outside"),
    "endless rate": (["--muon-learning-rate", "inf"], "muon_learning_rate inf is outside"),
    "decay below nothing": (["--weight-decay", "-1"], "weight_decay -1.0 is outside"),
    "momentum of 1": (["--momentum", "1"], "momentum 1.0 is outside"),
    "smoothing of 1": (["--label-smoothing", "1"], "label_smoothing 1.0 is outside"),
    "warmup of 1": (["--warmup", "1"], "warmup 1.0 is outside"),
    "patience below nothing": (["--patience", "-1"], "patience -1 is outside"),
    "too much dropped": (["--dropout", "1"], "dropout 1.0 is outside"),
    "more than turned round": (["--rotation", "181"], "rotation 181.0 is outside"),
    "zoomed away": (["--zoom", "1"], "zoom 1.0 is outside"),
    "too many views": (["--views", "8"], "views 8 is outside"),
    "seed below 0": (["--seed", "-1"], "seed -1 is outside"),
    "seed too large": (["--seed", str(2**63)], "seed 9223372036854775808 is outside"),
    "split seed too large": (["--split-seed", str(2**32)], "split_seed 4294967296 is outside"),
    "two stages": (["--widths", "8,8"], "the compact network has three stages"),
    "a stage of nothing": (["--widths", "8,0,8"], "widths 0 is outside"),
    "no stages": (["--widths", ""], "--widths: whole numbers with commas between them, not ''"),
    "digits wider than images": (["--digit-widths", "8,29"], "digit_widths 29 is outside [0, 28]"),
    "digits of no number": (["--digit-widths", "8;11"], "commas between them, not '8;11'"),
    "unknown network": (["--network", "resnet"], "invalid choice: 'resnet'"),
    "unknown optimizer": (["--optimizer", "sgd"], "invalid choice: 'sgd'"),
    "unknown schedule": (["--schedule", "cosine"], "invalid choice: 'cosine'"),
    "unknown precision": (["--precision", "int8"], "invalid choice: 'int8'"),
    "unknown augmentation": (["--augmentation", "mixup"], "invalid choice: 'mixup'"),
    "budget without unit": (["--time-budget", "90"], "write 90s, 45m or 2h"),
    "budget of nothing": (["--time-budget", "0m"], "no time to train in"),
    "budget below nothing": (["--time-budget", "-5m"], "--time-budget"),
    "budget of weeks": (["--time-budget", "2000h"], "no time to train in"),
    "budget in words": (["--time-budget", "soon"], "'soon' is no duration"),
    "abbreviated flag": (["--epoch", "3"], "--epoch"),
    "threads in words": (["--threads", "many"], "--threads: invalid int value"),
    "device that is not there": (["--device", "cuda:99"], "device cuda:99 does not work here"),
    "device that computes nothing": (["--device", "meta"], "device meta does not work here"),
    "value where none belongs": (["--quiet=3"], "--quiet"),
    "stray word": (["digits"], "unrecognized arguments: digits"),
}


SETTINGS = {
    "empty": (b"", "line 1, column 1: not JSON"),
    "not even text": (b"\xff\xfe{}", "it is not even text"),
    "a number too long": (b'{"epochs": ' + b"9" * 5000 + b"}", "it holds too long a number"),
    "a large number": (b'{"epochs": ' + b"9" * 400 + b"}", "is outside [1, 1e9]"),
    "NaN": (b'{"learning_rate": NaN}', "learning_rate nan is outside"),
    "endless": (b'{"learning_rate": 1e999}', "learning_rate inf is outside"),
    "null": (b'{"dropout": null}', "dropout is a number, not None"),
    "a list for a number": (b'{"epochs": [3]}', "epochs is a whole number, not [3]"),
    "true for a number": (b'{"epochs": true}', "epochs is a whole number, not True"),
    "words for yes": (b'{"softmax_head": "yes"}', "softmax_head is true or false"),
    "an unknown choice": (b'{"network": "mlp"}', "network is one of compact, classic, not 'mlp'"),
    "an unknown preset": (b'{"preset": "slow"}', "there is no preset 'slow'"),
    "widths of objects": (b'{"widths": [{}, 1, 2]}', "widths is a whole number, not {}"),
    "a flag that is no setting": (b'{"device": "cpu"}', "there is no setting 'device'"),
    "two values": (b"{} {}", "line 1, column 4: not JSON"),
}


@pytest.mark.parametrize("kind", FLAGS)
def test_wrong_flags_are_refused(desk, capsys, kind):
    flags, expected = FLAGS[kind]
    assert_refused(capsys, desk, [*RUN, *flags], expected)


@pytest.mark.parametrize("kind", SETTINGS)
def test_broken_settings_files_are_refused(desk, capsys, kind):
    content, expected = SETTINGS[kind]
    Path("mine.json").write_bytes(content)
    assert_refused(capsys, desk, ["--data", "digits", "--settings", "mine.json"], expected)


def test_a_folder_is_no_settings_file(desk, capsys):
    assert_refused(capsys, desk, ["--data", "digits", "--settings", "digits"], "cannot be read")
