"""The coordinates of the charts, which the macros of `templates/charts.html` draw as SVG.

A chart of days has one place for each day. Days without a rate leave a gap, closed days are marked.
Every chart of a file has the same scale, which begins at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float, float]
"""A rate with the ends of its interval, 0 to 1."""

_Area = tuple[int, int, int, int]
"""The left, upper, right and lower edge."""

SPARK_WIDTH, SPARK_HEIGHT = 112, 28
TREND_WIDTH, TREND_HEIGHT = 340, 150
_SPARK = (0, 2, SPARK_WIDTH, SPARK_HEIGHT - 2)
_TREND = (28, 6, TREND_WIDTH - 4, TREND_HEIGHT - 20)
_STEP = 0.1


@dataclass(frozen=True, slots=True)
class DayChart:
    """Paths (the attribute `d` of SVG) of a chart of days; an empty path draws nothing.

    `band` is the area of the intervals, `line` the rates, `dots` a point on each rate, `closed` a
    mark for each closed day, as high as the chart. `target` is the height of the target, if any.
    """

    band: str
    line: str
    dots: str
    closed: str
    target: float | None


def find_top(rates: Sequence[float]) -> float:
    """The upper end of the scale for these rates (0 to 1): a multiple of 10 percent, above 0."""
    return min(1.0, _STEP * max(1, math.ceil(round(max(rates, default=1.0) / _STEP, 6))))


def draw_spark(days: Sequence[Point | None], closed: Sequence[bool], top: float) -> DayChart:
    """A sparkline: the rates of some days on a scale from 0 to `top`."""
    return _draw(days, closed, None, top, _SPARK)


def draw_trend(
    days: Sequence[Point | None], closed: Sequence[bool], target: float | None, top: float
) -> DayChart:
    """A trend: the rates of some days with their intervals and the target."""
    return _draw(days, closed, target, top, _TREND)


def place_day(number: int, days: int) -> float:
    """The horizontal place of a day in a trend of so many days."""
    return round(_place_day(number, days, _TREND), 1)


def place_rate(rate: float, top: float) -> float:
    """The vertical place of a rate in a trend."""
    return round(_place_rate(rate, top, _TREND), 1)


def _place_day(number: int, days: int, area: _Area) -> float:
    left, _, right, _ = area
    return left + (number + 0.5) * (right - left) / days


def _place_rate(rate: float, top: float, area: _Area) -> float:
    _, upper, _, lower = area
    return lower - (lower - upper) * min(rate / top, 1.0)


def _draw(
    days: Sequence[Point | None],
    closed: Sequence[bool],
    target: float | None,
    top: float,
    area: _Area,
) -> DayChart:
    left, upper, right, lower = area
    width = (right - left) / max(len(days), 1)

    def x(number: int) -> float:
        return _place_day(number, len(days), area)

    def y(rate: float) -> float:
        return _place_rate(rate, top, area)

    bands, lines, dots = [], [], []
    for run in _find_runs(days):
        points = [(n, point) for n in run if (point := days[n]) is not None]
        dots += [f"M{x(n):.3g} {y(point[0]):.3g}h0" for n, point in points]
        if len(points) > 1:
            lines.append("M" + "L".join(f"{x(n):.3g} {y(point[0]):.3g}" for n, point in points))
            ends = [f"{x(n):.3g} {y(point[1]):.3g}" for n, point in points]
            ends += [f"{x(n):.3g} {y(point[2]):.3g}" for n, point in reversed(points)]
        else:
            (n, (_, low, high)), half = points[0], width / 3
            corners = ((-half, low), (half, low), (half, high), (-half, high))
            ends = [f"{x(n) + shift:.3g} {y(end):.3g}" for shift, end in corners]
        bands.append("M" + "L".join(ends) + "Z")
    marks = [f"M{x(n):.3g} {upper}V{lower}" for n, is_closed in enumerate(closed) if is_closed]
    return DayChart(
        "".join(bands),
        "".join(lines),
        "".join(dots),
        "".join(marks),
        None if target is None else round(y(target), 1),
    )


def _find_runs(days: Sequence[Point | None]) -> list[list[int]]:
    """The numbers of consecutive days with a rate."""
    runs: list[list[int]] = []
    for number, day in enumerate(days):
        if day is None:
            continue
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
