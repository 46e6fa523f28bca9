"""The views of days and of longer periods describe the same figures: their columns are alike."""

from __future__ import annotations

import re

from fer_batch.resources import find_sql_dir

NAMED_DIFFERENTLY = {"capture_day", "period", "first_day", "last_day"}
DESCRIBED_DIFFERENTLY = {
    "images", "faces_scored", "faces", "is_complete", "is_below_expected", "not_scored", "revision",
}  # fmt: skip
"""What these columns mean depends on the length of the period."""


def read_view(name: str) -> tuple[list[str], dict[str, str]]:
    """The columns of a view in order, and the comment of each."""
    (file,) = (find_sql_dir() / "views").glob(f"*_{name}.sql")
    text = file.read_text(encoding="utf-8")
    selected = text.partition("SELECT\n")[2].partition("\nFROM")[0]
    columns = re.sub("--.*", "", selected).split(",")
    comments = re.findall(rf"COMMENT ON COLUMN fer\.{name}\.(\w+) IS '(.*)';", text)
    return [re.findall(r"\w+", column)[-1] for column in columns], dict(comments)


def test_the_views_of_days_and_periods_have_the_same_columns() -> None:
    (daily, of_days), (periods, of_periods) = map(
        read_view, ("satisfaction_daily", "satisfaction_period")
    )
    assert list(of_days) == daily
    assert list(of_periods) == periods
    shared = [name for name in daily if name not in NAMED_DIFFERENTLY]
    assert shared == [name for name in periods if name not in NAMED_DIFFERENTLY]
    different = {name for name in shared if of_days[name] != of_periods[name]}
    assert different == DESCRIBED_DIFFERENTLY
