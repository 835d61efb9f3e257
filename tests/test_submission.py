from __future__ import annotations

import pytest
import torch

from digitkaggle.errors import InputError
from digitkaggle.submission import check_submission, write_submission


def test_a_submission_is_in_the_competitions_form(tmp_path):
    path = tmp_path / "submission.csv"
    write_submission(path, torch.tensor([7, 0, 9]), 3)
    assert path.read_bytes() == b"ImageId,Label\n1,7\n2,0\n3,9\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: the header is ''"),
        ("id,Label\n1,7\n2,0\n", "line 1: the header is 'id,Label'"),
        ("ImageId,Label\n1,7\n", "1 rows for 2 test images"),
        ("ImageId,Label\n1,7\n2,0\n3,0\n", "3 rows for 2 test images"),
        ("ImageId,Label\n0,7\n1,0\n", "row 1: ImageId is '0', not 1"),
        ("ImageId,Label\n1,7\n1,0\n", "row 2: ImageId is '1', not 2"),
        ("ImageId,Label\n1,7\n2,10\n", "row 2: Label '10' is no digit"),
        ("ImageId,Label\n1,7\n2,\n", "row 2: Label '' is no digit"),
    ],
)
def test_a_wrong_submission_is_refused_with_its_row(text, expected):
    with pytest.raises(InputError) as caught:
        check_submission(text, 2, "submission.csv")
    assert expected in str(caught.value)


def test_nothing_is_put_in_place_if_an_image_was_not_predicted(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("what was there")
    with pytest.raises(InputError, match="2 rows for 3 test images"):
        write_submission(path, torch.tensor([7, 0]), 3)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]
