"""Any bytes at all, and good files damaged anywhere: read, or refused in a line."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digitkaggle.checkpoint import drop_state, keep_state, take_up_state
from digitkaggle.data import PIXEL_COLUMNS, read_digits, read_test_images
from digitkaggle.device import choose_compute
from digitkaggle.errors import InputError
from digitkaggle.files import read_json
from digitkaggle.models import load_model
from tests.bad_input.conftest import model

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
