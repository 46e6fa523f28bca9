"""Tables on stdout: complete and readable at any width, and stable in a pipe."""

from __future__ import annotations

import os
import pty
import re
import struct
import sys
from collections.abc import Mapping
from datetime import date
from fcntl import ioctl
from termios import TIOCSWINSZ

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fer_batch import console

CHECKS = [
    {"part": "database", "ok": "yes", "detail": "127.0.0.1:5432/fer is up to date"},
    {
        "part": "facility lotus-mall",
        "ok": "NO",
        "detail": "skipped: the permission of this facility ended on 2026-11-10; record a new "
        "one with its lawful basis before the facility is read again",
    },
]
WIDTHS = (40, 80, 120)


def test_in_a_pipe_a_row_is_one_line_whose_cells_can_be_split(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_table("Checks", CHECKS)
    title, header, *lines = capsys.readouterr().out.splitlines()
    assert title == "Checks"
    assert header.split() == ["part", "ok", "detail"]
    assert [re.split(r" {2,}", line) for line in lines] == [list(row.values()) for row in CHECKS]


def test_an_empty_table_and_empty_cells() -> None:
    assert console.format_table("Findings", [], 80) == "Findings: none\n"
    text = console.format_table("Facilities", [{"id": "a", "note": "", "target": None}], None)
    assert text == "Facilities\nid  note  target\na   –     –\n"


def test_numbers_are_aligned_to_the_right_and_counts_are_written_out() -> None:
    rows: list[dict[str, object]] = [
        {"shard": "a", "images": 5, "rate": "3 %", "outcomes": {"scored": 4, "empty": 1}},
        {"shard": "b", "images": 1250, "rate": None, "outcomes": {}},
    ]
    assert console.format_table("Scored", rows, None).splitlines() == [
        "Scored",
        "shard  images  rate  outcomes",
        "a           5   3 %  4 scored, 1 empty",
        "b        1250     –  –",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_on_a_terminal_sentences_wrap_at_words_and_dates_stay_whole(width: int) -> None:
    lines = console.format_table("Checks", CHECKS, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "2026-11-10" in text
    assert "127.0.0.1:5432/fer" in text
    words = [word for row in CHECKS for value in row.values() for word in value.split()]
    assert [word for word in words if word not in text.split()] == []


def test_a_table_that_is_too_wide_is_divided() -> None:
    rows = [{"name": "a", "key": "k" * 50, "day": "2026-11-20 03:05 UTC", "place": "p" * 50}]
    assert console.format_table("Keys", rows, 80).splitlines() == [
        "Keys",
        "name  key" + " " * 49 + "day",
        "a     " + "k" * 50 + "  2026-11-20 03:05 UTC",
        "",
        "name  place",
        "a     " + "p" * 50,
    ]
    assert len(console.format_table("Keys", rows, 130).splitlines()) == 3


def test_a_table_that_does_not_fit_either_becomes_a_list() -> None:
    rows = [{"name": "a", "key": "k" * 79, "place": "Berlin, Mitte"}, {"name": "b", "place": "1"}]
    assert console.format_table("Keys", rows, 80).splitlines() == [
        "Keys",
        "name   a",
        "key    " + "k" * 79,
        "place  Berlin, Mitte",
        "",
        "name   b",
        "key    –",
        "place  1",
    ]


def test_wide_characters_are_aligned() -> None:
    rows = [{"name": "渋谷スクランブル", "faces": "244"}, {"name": "Café", "faces": "9"}]
    lines = console.format_table("Day", rows, None).splitlines()[1:]
    assert {cell_len(line) for line in lines} == {16 + 2 + 5}


def test_a_value_cannot_move_the_cursor_or_begin_a_line() -> None:
    text = console.format_table("Findings", [{"key": "a\x1b[2Jb", "finding": "one\r\ntwo"}], None)
    assert text.splitlines()[-1] == r"a\x1b[2Jb  one two"


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.dates(),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Z", "M")), max_size=90),
    st.lists(st.sampled_from(["the", "permission", "ended", "渋谷"]), max_size=30).map(" ".join),
)
TABLES = st.integers(1, 6).flatmap(
    lambda columns: st.lists(
        st.lists(CELLS, min_size=columns, max_size=columns).map(
            lambda row: {f"column_{number}": cell for number, cell in enumerate(row)}
        ),
        min_size=1,
        max_size=4,
    )
)


@given(TABLES, st.integers(1, 200))
def test_no_width_loses_or_breaks_a_word(rows: list[Mapping[str, object]], width: int) -> None:
    narrow = console.format_table("Rows", rows, width).split()
    wide = console.format_table("Rows", rows, None)
    assert set(wide.split()) == set(narrow)
    assert len(wide.splitlines()) == 2 + len(rows)
    for row in rows:
        for value in row.values():
            if isinstance(value, date):
                assert str(value) in narrow


def test_at_a_terminal_its_width_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "__stdout__", stdout)
        console.print_table("Checks", CHECKS)
        console.print_text("word " * 20)
        stdout.flush()
        printed = terminal.read(100_000).decode()
    lines = printed.replace("\r\n", "\n").splitlines()
    assert 50 < max(map(cell_len, lines)) <= 60
    assert "\x1b" not in printed
