"""Options of `fer-batch demo` that contradict each other are refused before anything starts."""

from __future__ import annotations

import pytest

from fer_batch.errors import EXIT_PERMANENT
from tests.fixtures.command import Command


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--shop"], "--shop requires --fer2013"),
        (["--days", "2", "--images", "photographs"], "--days is for synthetic faces only"),
        (["--days", "2", "--fer2013", "fer2013.csv"], "--days is for synthetic faces only"),
        (["--images", "photographs", "--fer2013", "fer2013.csv"], "exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    fer: Command, options: list[str], problem: str
) -> None:
    result = fer("demo", *options)
    assert result.code == EXIT_PERMANENT
    assert problem in result.err


@pytest.mark.parametrize("days", ["0", "29"])
def test_the_number_of_days_is_limited(fer: Command, days: str) -> None:
    result = fer("demo", "--days", days)
    assert result.code != 0
    assert "--days" in result.err
