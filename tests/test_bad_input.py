"""A corpus of broken input for every way in: one `error:` line, exit code 2, and nothing changed.

What the readers say of single cells, tables and archives is in test_data.py; here whole commands
meet what is broken.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digitkaggle.checkpoint import drop_state, keep_state, take_up_state
from digitkaggle.cli import main
from digitkaggle.data import PIXEL_COLUMNS, read_digits, read_test_images
from digitkaggle.device import choose_compute
from digitkaggle.errors import InputError
from digitkaggle.files import read_json
from digitkaggle.models import load_model
from digitkaggle.networks import build_network
from digitkaggle.settings import make_settings
from tests.conftest import contents

RUN = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "1", "--data", "digits", "--out", "out"]

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
    "no stages": (["--widths", ""], "--widths: invalid"),
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


def write(name: str, content: str | bytes) -> Callable[[], None]:
    """What puts a file into the folder."""

    def put() -> None:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return put


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[], None]:
    """What edits a file that is there."""
    return lambda: write(name, edit(Path(name).read_bytes()))()


def archive(edit: Callable[[zipfile.ZipFile], None], fix=lambda content: content):
    """What makes digits.zip: its members, and what is done to its bytes."""

    def put() -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
            edit(made)
        Path("digits.zip").write_bytes(fix(buffer.getvalue()))

    return put


def both_tables(made: zipfile.ZipFile) -> None:
    for name in ("train.csv", "test.csv"):
        made.write(f"digits/{name}", name)


def claim_small_size(content: bytes) -> bytes:
    """A bomb: its directory and header say 100 bytes, and far more come out."""
    size = struct.pack("<I", 50_000_000)
    assert content.count(size) == 2
    return content.replace(size, struct.pack("<I", 100))


def unknown_method(content: bytes) -> bytes:
    at = content.index(b"PK\1\2")
    return content[:8] + b"\x63\0" + content[10 : at + 10] + b"\x63\0" + content[at + 12 :]


def only_rows(count: int) -> Callable[[bytes], bytes]:
    return lambda content: b"\n".join(content.split(b"\n")[: count + 1])


def swap_tables() -> None:
    Path("digits/train.csv").rename("digits/other.csv")
    Path("digits/test.csv").rename("digits/train.csv")
    Path("digits/other.csv").rename("digits/test.csv")


def lonely_nine(content: bytes) -> bytes:
    header, first, *rows = content.strip().split(b"\n")
    rest = [b"3" + row[1:] if row.startswith(b"9") else row for row in rows]
    return b"\n".join([header, b"9" + first[1:], *rest])


ZIP = ["--data", "digits.zip"]
# What is done to good data, flags after the good ones, and what is said.
DATA = {
    "semicolons": (
        change("digits/train.csv", lambda content: content.replace(b",", b";")),
        [], "digits/train.csv, line 1: no header",
    ),
    "UTF-16": (
        change("digits/train.csv", lambda content: content.decode().encode("utf-16")),
        [], "digits/train.csv, line 1: no header",
    ),
    "gzip": (
        write("digits/test.csv", b"\x1f\x8b\x08\0" + bytes(range(256))),
        [], "digits/test.csv, line 1: no header",
    ),
    "blank lines only": (write("digits/test.csv", "\n\n  \n"), [], "digits/test.csv is empty"),
    "endless header": (write("digits/train.csv", "label," * 50_000), [], "digits/train.csv"),
    "a folder for a table": (
        lambda: (Path("digits/test.csv").unlink(), Path("digits/test.csv").mkdir()),
        [], "digits holds no test.csv",
    ),
    "tables swapped": (swap_tables, [], "digits/train.csv: column label is missing"),
    "old Mac line ends": (
        change("digits/train.csv", lambda content: content.replace(b"\n", b"\r")),
        [], "digits/train.csv",
    ),
    "NULs at the end": (
        change("digits/test.csv", lambda content: content + bytes(5000)), [], "digits/test.csv, row"
    ),
    "half a download": (
        change("digits/test.csv", lambda content: content[: len(content) // 2]),
        [], "digits/test.csv, row",
    ),
    "five images": (change("digits/train.csv", only_rows(5)), [], "few to"),
    "one image of a class": (
        change("digits/train.csv", lonely_nine), [], "class 9 has a single training image"
    ),
    "more folds than images of a class": (
        lambda: None, ["--members", "2", "--validation-fraction", "0.01"],
        "cannot be shared out among 100 folds",
    ),
    "a device file": (lambda: None, ["--data", "/dev/zero"], "/dev/zero is neither a folder nor"),
    "a pipe that nobody writes to": (
        lambda: os.mkfifo("pipe.csv"), ["--data", "pipe.csv"], "pipe.csv is neither a folder nor"
    ),
    "a table where both are needed": (
        lambda: None, ["--data", "digits/train.csv"], "train.csv is neither a folder nor a zip"
    ),
    "a link to itself": (
        lambda: os.symlink("loop", "loop"), ["--data", "loop"], "loop does not exist"
    ),
    "bomb by real size": (
        archive(lambda made: made.writestr("train.csv", b"0" * 50_000_000), claim_small_size),
        ZIP, "digits.zip/train.csv",
    ),
    "zip without test.csv": (
        archive(lambda made: made.write("digits/train.csv", "train.csv")),
        ZIP, "digits.zip holds no test.csv",
    ),
    "zip of folders": (
        archive(lambda made: made.writestr("train.csv/", "")), ZIP, "digits.zip holds no train.csv"
    ),
    "zip packed in a way nobody knows": (
        archive(both_tables, unknown_method), ZIP, "compression method is not supported"
    ),
    "zip in a zip": (
        archive(lambda made: made.writestr("inner.zip", b"PK\3\4")),
        ZIP, "digits.zip holds no train.csv",
    ),
    "zip with its bytes shifted": (
        archive(both_tables, lambda content: content[:40] + content[41:]), ZIP, "digits.zip"
    ),
    "zip whose table is bad": (
        archive(lambda made: (made.writestr("train.csv", "label\n1\n"),
                              made.write("digits/test.csv", "test.csv"))),
        ZIP, "digits.zip/train.csv: column pixel0 is missing (and 783 more)",
    ),
}  # fmt: skip

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


def model(**changes: object) -> dict[str, object]:
    """A small good model, with some of its content changed."""
    settings = make_settings("fast", {"widths": (4, 4, 4)})
    network = build_network(settings, torch.Generator())
    return {"settings": settings.as_dict(), "members": [network.state_dict()], **changes}


def settings_with(**changes: object) -> dict[str, object]:
    return make_settings("fast", {"widths": (4, 4, 4)}).as_dict() | changes


class Touch:
    """Executes something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


NAN_WEIGHTS = {name: value * float("nan") if value.is_floating_point() else value
               for name, value in model()["members"][0].items()}  # fmt: skip
MODELS = {
    "no network": (model(members=[]), "it holds no network"),
    "no settings": ({"members": []}, "its settings are missing or unknown"),
    "a list": ([1, 2, 3], "its settings are missing or unknown"),
    "a lone tensor": (torch.zeros(3), "its settings are missing or unknown"),
    "members in words": (model(members="two"), "its weights do not fit its settings"),
    "members that are numbers": (model(members=[7]), "its weights do not fit its settings"),
    "one layer less": (
        model(members=[dict(list(model()["members"][0].items())[1:])]),
        "its weights do not fit its settings",
    ),
    "other widths": (
        model(settings=settings_with(widths=[8, 8, 8])), "its weights do not fit its settings"
    ),
    "words for weights": (
        model(members=[dict.fromkeys(model()["members"][0], "no")]),
        "its weights do not fit its settings",
    ),
    "weights that are NaN": (model(members=[NAN_WEIGHTS]), "its weights are not all numbers"),
    "a preset of the future": (
        model(settings=settings_with(preset="next")), "its settings are missing or unknown"
    ),
    "a setting out of range": (
        model(settings=settings_with(views=99)), "its settings are missing or unknown"
    ),
    "code": ({"settings": Touch()}, "it is damaged, or would run code when opened"),
    "a bare hostile pickle": (Touch(), "it is damaged, or would run code when opened"),
}  # fmt: skip

GOOD_RUN = {"settings": {}, "data_digest": "", "source_digest": ""}
# What stands in the run's folder already, flags, and what is said.
FOLDERS = {
    "a file for a folder": (write("out", "mine"), [], "out is no folder"),
    "a file above the folder": (
        write("mine", "mine"), ["--out", "mine/out"], "mine/out cannot be used"
    ),
    "somebody's submission": (
        write("out/submission.csv", "mine"), [], "results or a checkpoint that no known run wrote"
    ),
    "somebody's model": (write("out/model.pt", "mine"), [], "that no known run wrote"),
    "a file called checkpoint": (write("out/checkpoint", "mine"), [], "that no known run wrote"),
    "a checkpoint without its run": (
        write("out/checkpoint/training-0001.pt", "mine"), [], "that no known run wrote"
    ),
    "a run that is no JSON": (write("out/checkpoint/run.json", "{"), [], "that no known run wrote"),
    "a run that is a list": (write("out/checkpoint/run.json", "[]"), [], "that no known run wrote"),
    "a run whose settings are a list": (
        write("out/checkpoint/run.json", json.dumps(GOOD_RUN | {"settings": []})),
        [], "that no known run wrote",
    ),
    "a run with other settings": (
        write("out/checkpoint/run.json", json.dumps(GOOD_RUN)), [], "preset None there, fast here"
    ),
    "metrics without settings": (
        lambda: (write("out/metrics.json", "{}")(), write("out/history.csv", "mine")()),
        [], "that no known run wrote",
    ),
}  # fmt: skip


@pytest.fixture
def desk(tmp_path, data_folder, monkeypatch) -> Path:
    """A folder to work in, with good data in digits/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(capsys, desk: Path, flags: list[str], expected: str) -> None:
    """The command ends with one line, exit code 2, and every file as it was."""
    before = contents(desk)
    folders = sorted(path for path in desk.rglob("*") if path.is_dir())
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: "), said
    assert said.count("\n") == 1, said
    assert expected in said
    assert len(said) < 600, said
    assert contents(desk) == before
    assert sorted(path for path in desk.rglob("*") if path.is_dir()) == folders


@pytest.mark.parametrize("kind", FLAGS)
def test_wrong_flags_are_refused(desk, capsys, kind):
    flags, expected = FLAGS[kind]
    assert_refused(capsys, desk, [*RUN, *flags], expected)


@pytest.mark.parametrize("kind", DATA)
def test_broken_data_are_refused(desk, capsys, kind):
    spoil, flags, expected = DATA[kind]
    spoil()
    assert_refused(capsys, desk, [*RUN, *flags], expected)


@pytest.mark.parametrize("kind", SETTINGS)
def test_broken_settings_files_are_refused(desk, capsys, kind):
    content, expected = SETTINGS[kind]
    Path("mine.json").write_bytes(content)
    assert_refused(capsys, desk, ["--data", "digits", "--settings", "mine.json"], expected)


def test_a_folder_is_no_settings_file(desk, capsys):
    assert_refused(capsys, desk, ["--data", "digits", "--settings", "digits"], "cannot be read")


@pytest.mark.parametrize("kind", MODELS)
def test_broken_models_are_refused_and_execute_nothing(desk, capsys, kind):
    content, expected = MODELS[kind]
    if kind.startswith("a bare"):
        Path("model.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, "model.pt")
    assert_refused(capsys, desk, ["predict", "model.pt", "--data", "digits"], expected)
    assert not (desk / "hacked").exists()


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_that_are_somebody_elses_are_refused(desk, capsys, kind):
    prepare, flags, expected = FOLDERS[kind]
    prepare()
    assert_refused(capsys, desk, [*RUN, *flags], expected)


def test_predictions_go_into_no_folder_and_come_from_no_training_file(desk, capsys):
    torch.save(model(), "model.pt")
    flags = ["predict", "model.pt", "--data", "digits"]
    assert_refused(capsys, desk, [*flags, "--out", "digits"], "digits cannot be written")
    train = ["predict", "model.pt", "--data", "digits/train.csv"]
    assert_refused(capsys, desk, train, "is this a training file?")


def test_the_corpus_has_at_least_60_kinds():
    assert sum(map(len, (FLAGS, DATA, SETTINGS, MODELS, FOLDERS))) >= 60


# --- any bytes at all

HEADER = ",".join(PIXEL_COLUMNS).encode()


def only_refused(read: Callable[[], object]) -> None:
    """Reading gives something, or an InputError of one line; never anything else."""
    said = ""
    try:
        read()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000


@given(content=st.binary(max_size=300), headed=st.booleans())
@example(content=b"\r" * 9, headed=True)
@example(content=b'"', headed=True)
def test_any_bytes_for_a_table_are_read_or_refused(desk, content, headed):
    Path("any.csv").write_bytes(HEADER + b"\n" + content if headed else content)
    only_refused(lambda: read_test_images(Path("any.csv")))


def small_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, method in [("train.csv", zipfile.ZIP_DEFLATED), ("test.csv", zipfile.ZIP_LZMA)]:
            label = b"label," if name == "train.csv" else b""
            rows = b"\n".join(
                [label + HEADER, *[b"1," * bool(label) + b",".join([b"7"] * 784)] * 2]
            )
            made.writestr(name, rows, method)
    return buffer.getvalue()


SMALL_ZIP = small_zip()
SMALL_MODEL = io.BytesIO()
torch.save(model(), SMALL_MODEL)


def changed(content: bytes, edits: list[tuple[float, int]], cut: float) -> bytes:
    """Bytes with some replaced, each at a share of the length, and the end cut off."""
    edited = bytearray(content)
    for place, value in edits:
        edited[int(place * (len(edited) - 1))] = value
    return bytes(edited[: int(cut * len(edited))])


EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)
CUT = st.one_of(st.just(1.0), st.floats(0, 1))


@given(edits=EDITS, cut=CUT)
@hypothesis_settings(max_examples=200)
def test_any_damage_to_a_zip_is_read_or_refused(desk, edits, cut):
    Path("any.zip").write_bytes(changed(SMALL_ZIP, edits, cut))
    only_refused(lambda: read_digits(Path("any.zip")))


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
@example(content=b"1" * 5000)
@example(content=b"[" * 100_000)
@example(content=b'"\\ud800"')
def test_any_bytes_for_json_are_read_or_refused(desk, content):
    Path("any.json").write_bytes(content)
    only_refused(lambda: read_json(Path("any.json")))


@given(edits=EDITS, cut=CUT)
@hypothesis_settings(max_examples=60)
def test_any_damage_to_a_checkpoint_is_recognised(desk, edits, cut):
    path = Path("state.pt")
    drop_state(path)
    keep_state(path, {"number": 1})
    whole = path.read_bytes()
    path.write_bytes(changed(whole, edits, cut))
    same = path.read_bytes() == whole
    assert take_up_state(path, dict) == ({"number": 1} if same else None)


COMPUTE = choose_compute("cpu", "float32")


@given(edits=EDITS, cut=CUT)
@hypothesis_settings(max_examples=60)
def test_any_damage_to_a_model_is_read_or_refused(desk, edits, cut):
    Path("any.pt").write_bytes(changed(SMALL_MODEL.getvalue(), edits, cut))
    only_refused(lambda: load_model(Path("any.pt"), COMPUTE))
