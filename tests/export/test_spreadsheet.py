"""CSV that a spreadsheet opens: no cell is a formula, and no number is damaged."""

from __future__ import annotations

import csv
import re
from datetime import UTC, date, datetime
from io import StringIO

import hypothesis
import pytest
from hypothesis import strategies as st

from fer_batch.export.spreadsheet import defuse, encode

FORMULA = re.compile(r"[\s\x00-\x1f\u200b\ufeff\"]*[=+\-@＝＋－＠]|[\t\r\n]")
TEXTS = st.text(st.sampled_from("=+-@＝\t\r\n ;,\"'a1\0\ufeff") | st.characters(codec="utf-8"))


def parse(content: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def test_numbers_dates_and_quotes() -> None:
    row = {
        "name": 'North "A",\nÄrger',
        "change": -0.0375,
        "points": -12,
        "share": 1e-07,
        "day": date(2026, 11, 28),
        "at": datetime(2026, 11, 28, 2, 0, tzinfo=UTC),
        "is_complete": True,
        "none": None,
        "not_scored": {"no_face": 3},
    }
    content = encode(list(row), [row])
    assert content.startswith(b"\xef\xbb\xbfname,")
    assert content.endswith(b"\r\n")
    assert parse(content)[1] == [
        'North "A",\nÄrger',
        "-0.0375",
        "-12",
        "1e-07",
        "2026-11-28",
        "2026-11-28T02:00:00+00:00",
        "true",
        "",
        '{"no_face": 3}',
    ]


@pytest.mark.parametrize(
    "text",
    [
        *('=HYPERLINK("http://x")', "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\rx", "\nx"),
        *("  =1", "\ufeff=1", "\0=1", "＝1+1", '"=1', "\u200b@x"),
    ],
)
def test_a_formula_becomes_text(text: str) -> None:
    ((cell,),) = parse(encode(["a"], [{"a": text}]))[1:]
    assert cell == "'" + text.replace("\0", "")


@pytest.mark.parametrize(
    "text", ["North Mall", "a=b", "2026-11-28", "Café - Bar", "8-10", "a, -b", "x\ny", "a;b", ""]
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert defuse(text) == text


@hypothesis.given(st.lists(TEXTS, min_size=2, max_size=3))
def test_no_text_is_a_formula_whatever_separates_cells(texts: list[str]) -> None:
    columns = [f"c{n}" for n in range(len(texts))]
    content = encode(columns, [dict(zip(columns, texts, strict=True))])
    assert len(parse(content)) == 2
    for cell in parse(content)[1]:
        assert not FORMULA.match(cell)
    # Excel in a country with a decimal comma separates by semicolons, other programs by tabs.
    for part in re.split(r"[;\t\r\n]", content.decode("utf-8-sig").partition("\r\n")[2]):
        assert not re.match(r'[\s\x00-\x1f\ufeff"]*[=+\-@＝＋－＠]', part)


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_a_number_is_read_back_as_it_was(number: float) -> None:
    ((cell,),) = parse(encode(["a"], [{"a": number}]))[1:]
    assert float(cell) == float(number)
