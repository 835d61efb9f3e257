from __future__ import annotations

import io

import pytest

from digitkaggle.progress import make_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("shown", "stream", "visible"),
    [(True, Terminal, True), (False, Terminal, False), (True, io.StringIO, False)],
)
def test_a_bar_shows_on_a_terminal_alone_and_only_where_it_is_wanted(shown, stream, visible):
    said = stream()
    assert list(make_bar([3, 1, 2], shown=shown, desc="counting", file=said, delay=0)) == [3, 1, 2]
    assert ("counting" in said.getvalue()) == visible


def test_what_is_done_within_two_seconds_shows_no_bar():
    said = Terminal()
    with make_bar(shown=True, total=2, file=said) as bar:
        bar.update(2)
    assert not said.getvalue()


def test_a_bar_goes_away_when_it_is_done():
    said = Terminal()
    with make_bar(shown=True, total=2, file=said, delay=0) as bar:
        bar.update(2)
    assert said.getvalue().endswith("\r")
